"""Bytes as programs write them: compressed, in UTF-16, with what strict JSON lacks."""

import gzip
import io
import math
import sys
import types

import pytest

from mindscore._util import encodings
from mindscore._util.encodings import to_utf8, without_lone_surrogates
from mindscore._util.errors import TranscriptError
from mindscore._util.files import decode, decode_repaired, read_content

TEXT = '{"é": "😀"}'


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_each_encoding_with_a_byte_order_mark_becomes_utf_8(encoding):
    assert to_utf8(TEXT.encode(encoding)) == TEXT.encode()


def test_utf_16_of_the_other_byte_order_is_read_too():
    assert to_utf8(b"\xfe\xff" + TEXT.encode("utf-16-be")) == TEXT.encode()


def test_utf_16_that_is_cut_off_is_refused():
    with pytest.raises(ValueError, match="is not valid UTF-16"):
        to_utf8(TEXT.encode("utf-16")[:-1])


def test_gzip_is_decompressed_all_its_members_and_what_is_in_it_decoded():
    packed = gzip.compress(TEXT.encode("utf-16")[:8]) + gzip.compress(TEXT.encode("utf-16")[8:])
    assert to_utf8(packed) == TEXT.encode()


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (gzip.compress(b"a" * 100, mtime=0)[:-9], "is cut off: its gzip data has no end"),
        (b"\x1f\x8b" + b"x" * 20, "is damaged gzip: "),
    ],
)
def test_gzip_that_is_damaged_is_refused(packed, why):
    with pytest.raises(ValueError, match=why):
        to_utf8(packed)


def test_what_holds_too_much_is_refused_before_it_is_kept(monkeypatch):
    monkeypatch.setattr(encodings, "MAX_DECOMPRESSED", 3 << 20)
    with pytest.raises(ValueError, match=r"holds more than 0\.00293 GiB once decompressed"):
        to_utf8(gzip.compress(bytes(4 << 20)))
    assert len(to_utf8(gzip.compress(bytes(3 << 20)))) == 3 << 20


def test_zstd_without_its_package_is_refused_with_what_to_install(monkeypatch):
    monkeypatch.setattr(encodings, "_ZSTD_MODULES", ("no_such_module",))
    with pytest.raises(ValueError, match=r"pip install 'mindscore\[zstd\]'"):
        to_utf8(b"\x28\xb5\x2f\xfd")


def test_zstd_is_read_by_the_module_that_is_there(monkeypatch):
    class ZstdFile(io.BytesIO):
        def __init__(self, packed):
            super().__init__(packed.read()[4:].swapcase())

    module = types.SimpleNamespace(ZstdFile=ZstdFile)
    monkeypatch.setitem(sys.modules, "zstd_of_the_test", module)
    monkeypatch.setattr(encodings, "_ZSTD_MODULES", ("no_such_module", "zstd_of_the_test"))
    assert to_utf8(b"\x28\xb5\x2f\xfdABC") == b"abc"


def test_zstd_of_the_real_package_is_decompressed():
    zstd = pytest.importorskip("backports.zstd")
    packed = zstd.compress(TEXT.encode()) + zstd.compress(b"\n")
    assert to_utf8(packed) == TEXT.encode() + b"\n"
    with pytest.raises(ValueError, match="is cut off: its zstd data has no end"):
        to_utf8(packed[:-3])
    with pytest.raises(ValueError, match="is damaged zstd"):
        to_utf8(packed[:4] + b"x" * 40)


def test_a_file_that_cannot_be_decoded_is_named(tmp_path):
    file = tmp_path / "talk.gz"
    file.write_bytes(gzip.compress(b"a" * 100)[:-9])
    with pytest.raises(TranscriptError, match=r"talk\.gz: is cut off"):
        read_content(file)


def test_numbers_that_strict_json_lacks_are_read():
    assert decode(b'{"a": [Infinity, -Infinity, 1e999]}') == {"a": [math.inf, -math.inf, math.inf]}
    assert math.isnan(decode(b"NaN"))


@pytest.mark.parametrize("raw", [b"{NaN}", b'"NaN', b"[NaN,]", b"nan"])
def test_what_is_no_json_even_so_is_refused_with_the_strict_reason(raw):
    with pytest.raises(ValueError, match="is not valid JSON"):
        decode(raw)


@pytest.mark.parametrize(
    ("raw", "text", "number"),
    [
        (rb'"\ud83d ok"', "\ufffd ok", 1),
        (rb'"\udc00\ud83d"', "\ufffd\ufffd", 2),
        (rb'"\ud83d\ude00\ud83d"', "😀\ufffd", 1),
        (rb'"\\ud83d"', r"\ud83d", 0),
        (rb'"\\\ud83d"', "\\\ufffd", 1),
        (b'"\xed\xa0\xbd"', "\ufffd", 1),
        ('"😀"'.encode(), "😀", 0),
    ],
)
def test_lone_surrogates_are_replaced_and_counted_and_pairs_are_not(raw, text, number):
    assert decode_repaired(raw) == (text, number)
    assert without_lone_surrogates(raw)[1] == number


def test_surrogates_of_utf_16_are_replaced_as_well():
    raw = to_utf8('"\ud83d"'.encode("utf-16", "surrogatepass"))
    assert decode_repaired(raw) == ("\ufffd", 1)
