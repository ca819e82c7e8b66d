"""The API key in texts of a server: as it is, and as JSON, URLs and base64 write it."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindscore.http.client import HIDDEN, Redactor

KEY = 'sk-"/+<&>\\%41= Zq'
FORMS = {
    "plain": KEY,
    "upper case": KEY.upper(),
    "JSON": json.dumps(KEY)[1:-1],
    "JSON with slashes": json.dumps(KEY)[1:-1].replace("/", "\\/"),
    "a path": quote(KEY),
    "a query": quote(KEY, safe=""),
    "a form": quote_plus(KEY),
    "lower-case escapes": quote(KEY, safe="").lower(),
    "base64": base64.b64encode(KEY.encode()).decode(),
}


@pytest.mark.parametrize("written", FORMS.values(), ids=FORMS)
def test_the_key_is_taken_out_however_it_is_written(written):
    assert Redactor(KEY)(f"bad key: {written}!", is_cut=False).startswith(f"bad key: {HIDDEN}")


@pytest.mark.parametrize("written", FORMS.values(), ids=FORMS)
def test_its_beginning_at_the_end_of_a_text_that_was_cut_is_taken_out(written):
    for length in range(1, len(written.rstrip("="))):
        assert Redactor(KEY)(f"a: {written[:length]}", is_cut=True) == "a: "


@given(st.text("xyz -.", max_size=20), st.booleans())
def test_other_texts_stay(text, is_cut):
    assert Redactor(KEY)(text, is_cut=is_cut) == text
    assert Redactor(None)(text + KEY, is_cut=is_cut) == text + KEY
