"""ISO 8601 to nanoseconds, and the stand-in for a missing timestamp (section 7)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.conversation.native import parse_timestamp
from mindscore.measure.prompts import derived_timestamp_ns

SECOND = 10**9
LARGEST, SMALLEST = 2**63 - 1, -(2**63)
NOON = 1_772_366_400 * SECOND
"""2026-03-01 12:00 UTC."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1969-12-31T23:59:59.999999999Z", -1),
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T12:00:00+00:00", NOON),
        ("2026-03-01T12:00:00-00:00", NOON),
        ("2026-03-01T14:00:00+02:00", NOON),
        ("2026-03-01T06:30:00-05:30", NOON),
        ("2026-03-01T14:00:00+02", NOON),
        ("2026-03-01T14:00:00+0200", NOON),
        ("2026-03-01 12:00:00Z", NOON),
        ("2026-03-01T12:00Z", NOON),
        ("20260301T120000Z", NOON),
        ("2026-W09-7T12:00:00Z", NOON),
        ("2026-03-01", NOON - 12 * 3600 * SECOND),
    ],
)
def test_a_timestamp_is_nanoseconds_since_the_epoch(text, expected):
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00", "2026-03-01 12:00", "20260301T120000"])
def test_without_an_offset_it_is_utc(text):
    assert parse_timestamp(text) == NOON


@pytest.mark.parametrize(
    ("fraction", "nanoseconds"),
    [
        (".1", 100_000_000),
        (".12", 120_000_000),
        (".123456", 123_456_000),
        (".1234567", 123_456_700),
        (".123456789", 123_456_789),
        (",123456789", 123_456_789),
        (".000000001", 1),
        (".999999999", 999_999_999),
        (".1234567891", 123_456_789),
        (".9999999999", 999_999_999),
    ],
)
@pytest.mark.parametrize("offset", ["", "Z", "+00:00"])
def test_nine_fractional_digits_are_kept(fraction, nanoseconds, offset):
    assert parse_timestamp(f"2026-03-01T12:00:00{fraction}{offset}") == NOON + nanoseconds


def test_nine_fractional_digits_are_kept_without_colons_too():
    assert parse_timestamp("20260301T120000.123456789Z") == NOON + 123_456_789


@pytest.mark.parametrize("before", ["1969-12-31T23:59:58", "1900-01-01T00:00:00"])
def test_a_fraction_before_the_epoch_counts_forwards(before):
    assert parse_timestamp(f"{before}.25Z") == parse_timestamp(f"{before}Z") + SECOND // 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-03-01T11:59.5Z", NOON - SECOND * 30),
        ("2026-03-01T11.5Z", NOON - SECOND * 1800),
        ("2026-03-01T11:59,5", NOON - SECOND * 30),
    ],
)
def test_a_fraction_of_a_minute_or_hour_is_not_taken_for_one_of_a_second(text, expected):
    try:
        stamp = parse_timestamp(text)
    except ValueError:
        return
    assert stamp == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2262-04-11T23:47:16.854775807Z", LARGEST),
        ("1677-09-21T00:12:43.145224192Z", SMALLEST),
        ("2262-04-12T01:47:16.854775807+02:00", LARGEST),
        ("1677-09-20T22:12:43.145224192-02:00", SMALLEST),
    ],
)
def test_the_ends_of_int64_are_taken(text, expected):
    assert parse_timestamp(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "2262-04-11T23:47:16.854775808Z",
        "1677-09-21T00:12:43.145224191Z",
        "2262-04-11T23:47:16.854775807-00:01",
        "1677-09-21T00:12:43.145224192+00:01",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
    ],
)
def test_outside_int64_is_an_error(text):
    with pytest.raises(ValueError, match="64-bit") as caught:
        parse_timestamp(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "now",
        "12:00:00",
        "1772366400",
        "2026-02-30T12:00:00Z",
        "2026-13-01",
        "2026-03-01T25:00:00Z",
        "2026-03-01T12:60:00Z",
        "2026-03-01T12:00:61Z",
        "2026-03-01T12:00:00.",
        "2026-03-01T12:00:00.1.2Z",
        "2026-03-01T12:00:00+25:00",
        "2026-03-01T12:00:00 UTC",
        "Sun, 01 Mar 2026 12:00:00 GMT",
        "2026-03-01T12:00:00Z\n",
        "01/03/2026",
    ],
)
def test_what_is_no_timestamp_is_an_error_in_one_line(text):
    with pytest.raises(ValueError, match="ISO 8601") as caught:
        parse_timestamp(text)

    assert repr(text) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@given(
    stamp=st.integers(SMALLEST, LARGEST),
    minutes=st.integers(-23 * 60, 23 * 60),
    separator=st.sampled_from("T "),
)
def test_every_nanosecond_of_int64_is_read_back_at_every_offset(stamp, minutes, separator):
    seconds, nanoseconds = divmod(stamp, SECOND)
    local = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, minutes=minutes)
    hours, rest = divmod(abs(minutes), 60)
    sign = "-" if minutes < 0 else "+"
    clock = local.strftime(f"%Y-%m-%d{separator}%H:%M:%S")

    text = f"{clock}.{nanoseconds:09}{sign}{hours:02}:{rest:02}"

    assert parse_timestamp(text) == stamp


# The stand-in for a missing one.

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=20)


@given(IDS, IDS)
def test_a_derived_timestamp_is_an_int64_that_stays_the_same(prompt, body):
    stamp = derived_timestamp_ns(prompt, body)

    assert 0 <= stamp <= LARGEST
    assert stamp == derived_timestamp_ns(tuple(prompt), iter(body))


@given(st.tuples(IDS, IDS), st.tuples(IDS, IDS))
def test_derived_timestamps_of_different_prompts_or_bodies_differ(one, other):
    same = derived_timestamp_ns(*one) == derived_timestamp_ns(*other)

    assert same == (one == other)


def test_a_token_more_in_the_prompt_and_less_in_the_body_is_another_response():
    assert derived_timestamp_ns([1, 2], [3]) != derived_timestamp_ns([1], [2, 3])
