"""Text made safe to show: on terminals, in JSON and in TOML."""

import json
import tomllib
import unicodedata
from datetime import datetime

import msgspec
import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from mindscore._util.text import (
    harmless_json,
    harmless_toml,
    iso_utc,
    moment_ago,
    moment_text,
    one_line,
    printable,
    shortened,
)

HIDDEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
ALL = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
texts = st.text() | st.text(st.characters(categories=["Cc", "Cf", "Co", "Zl", "Zp"]))


def is_harmless(text):
    return not [c for c in text if unicodedata.category(c) in HIDDEN]


def test_every_character_is_shown_or_escaped():
    assert is_harmless(printable(ALL))
    assert printable("tea ☕ 茶\t\x1b\x9b\u202e\ue000") == r"tea ☕ 茶\t\x1b\x9b\u202e\ue000"
    assert printable("\ud800\U000e0041") == r"\ud800\U000e0041"


def test_every_character_comes_through_json():
    document = harmless_json(msgspec.json.encode({ALL: [ALL]}))
    assert is_harmless(document.decode())
    assert json.loads(document) == msgspec.json.decode(document) == {ALL: [ALL]}


def test_every_character_comes_through_toml():
    # In pieces: Python's own reader puts a string together character by character.
    for first in range(0, len(ALL), 2**12):
        text = ALL[first : first + 2**12]
        document = harmless_toml(tomli_w.dumps({"a": text, text: {text: [text]}}))
        assert is_harmless(document.replace("\n", ""))
        assert tomllib.loads(document) == {"a": text, text: {text: [text]}}


@given(texts)
def test_what_is_harmless_stays_as_it_is(text):
    for shown in (printable(text), harmless_json(msgspec.json.encode(text)).decode()):
        assert is_harmless(shown)
        assert printable(shown) == shown


@given(texts, st.integers(20, 60))
def test_lines_are_as_short_as_asked(text, width):
    for line in (one_line(text, width), shortened(text, width)):
        assert len(line) <= width
        assert is_harmless(line)


def test_a_long_text_shows_its_beginning_and_its_end():
    assert shortened("a" * 2**20 + "the end", 20) == "aaaaaaaaaaaa…the end"


@pytest.mark.parametrize(
    ("passed", "ago"),
    [
        (5, ", just now"),
        (60, ", 1 minute ago"),
        (59 * 60 + 59, ", 59 minutes ago"),
        (7200, ", 2 hours ago"),
        (3 * 86400, ", 3 days ago"),
        (-60, ""),
    ],
)
def test_a_moment_is_a_local_time_and_how_long_ago_it_was(monkeypatch, passed, ago):
    then = datetime(2026, 3, 4, 5, 6).astimezone().timestamp()
    monkeypatch.setattr("time.time", lambda: then + passed)
    assert moment_ago(then) == f"2026-03-04 05:06{ago}"


@pytest.mark.parametrize("seconds", [1e300, float("nan"), float("-inf")])
def test_a_number_that_is_no_moment_is_said_to_be_none(seconds):
    assert moment_ago(seconds) == moment_text(seconds) == "at an unknown time"
    assert iso_utc(seconds) is None
