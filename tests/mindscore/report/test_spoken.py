"""Responses as words, each with its number of tokens."""

import asyncio
import logging
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Context, Node, Role, ScorerError
from mindscore.scorers.tokenizer import FileTokenizer
from mindscore.scorers.toy import ToyScorer
from mindscore.session.words import Word, as_cuts, spoken_words

TEXTS = st.text(alphabet="theanswrys.,' \n-42\u00e9\u4e2d\u6587\U0001f600", min_size=1, max_size=40)


class Detokenizer:
    """A scorer that says what ids mean; ``asked`` is what it was given."""

    model = "a server's"

    def __init__(self, file):
        self._tokenizer = FileTokenizer(file)
        self.asked = []

    async def tokenize(self, text):
        return await self._tokenizer.tokenize(text)

    async def detokenize(self, ids):
        self.asked.append(ids)
        return await self._tokenizer.detokenize(ids)


@pytest.fixture
def scorer(tokenizer_file):
    return Detokenizer(tokenizer_file)


def saying(*texts_and_ids):
    """A conversation of responses, each with a header of one token."""
    nodes = [
        Node(f"r{at}", Role.ASSISTANT, text, (1, *ids), (1, 1 + len(ids)))
        for at, (text, ids) in enumerate(texts_and_ids)
    ]
    return Context((), (), tuple(nodes))


async def words_of(scorer, text, ids):
    return (await spoken_words(saying((text, ids)), {"r0"}, scorer)).get("r0")


async def test_words_are_whole_and_have_all_tokens(scorer):
    text = "The answer is 42, yes:\n- unquestionably."
    ids = await scorer.tokenize(f"{text}<|im_end|>")
    words = await words_of(scorer, text, ids)
    assert "".join(word.text for word in words) == text
    assert sum(word.tokens for word in words) == len(ids)
    assert words[-1] == Word("", 1)
    assert "unquestionably" in [word.text.strip() for word in words]
    assert "answer" in [word.text.strip() for word in words]


@given(text=TEXTS)
def test_whatever_is_said_its_words_make_up_text_and_tokens(tokenizer_file, text):
    async def check():
        scorer = Detokenizer(tokenizer_file)
        ids = await scorer.tokenize(f"{text}<|im_end|>")
        words = await words_of(scorer, text, ids)
        assert "".join(word.text for word in words) == text
        assert sum(word.tokens for word in words) == len(ids)
        for one, other in pairwise(words):
            joint = one.text[-1:] + other.text[:1]
            assert not re.fullmatch(r"[a-z\u00e9]{2}", joint), "half a word"

    asyncio.run(check())


async def test_what_is_written_without_blanks_is_not_one_word(scorer):
    ids = await scorer.tokenize("\u4e2d\u6587\u4e2d\u6587<|im_end|>")
    words = await words_of(scorer, "\u4e2d\u6587\u4e2d\u6587", ids)
    assert [word.text for word in words] == [*["\u4e2d", "\u6587"] * 2, ""]


async def test_the_toys_words_are_found():
    toy = ToyScorer()
    ids = await toy.tokenize("You drink green tea.<|im_end|>")
    words = await words_of(toy, "You drink green tea.", ids)
    assert [(it.text, it.tokens) for it in words] == [
        ("You", 1), (" drink", 1), (" green", 1), (" tea", 1), (".", 1), ("", 1),
    ]  # fmt: skip


async def test_ids_that_the_toy_never_met_have_no_words():
    assert await words_of(ToyScorer(), "the answer", (1, 2)) is None


async def test_a_response_that_its_ids_spell_in_another_way_is_shown_by_them(scorer):
    ids = [it for letter in "the call()" for it in await scorer.tokenize(letter)]
    ids += await scorer.tokenize("<|im_end|>")
    by_letters = await words_of(scorer, "the call()", ids)
    assert [it.text for it in by_letters] == ["the", " ", "call", "(", ")", ""]
    # A tool call, which the text does not have.
    only_called = await words_of(scorer, "", ids)
    assert "".join(it.text for it in only_called) == "the call()<|im_end|>"


async def test_a_response_without_the_end_of_turn_of_the_others_has_words(scorer):
    said = [(text, await scorer.tokenize(f"{text}<|im_end|>")) for text in ("yes", "no")]
    cut = ("the answer", await scorer.tokenize("the answer"))
    found = await spoken_words(saying(*said, cut), {"r2"}, scorer)
    assert [it.text for it in found["r2"]] == ["the", " answer"]


async def test_blanks_that_a_tokenizer_adds_or_drops_are_found():
    class Spacing(ToyScorer):
        token_texts = None

        async def detokenize(self, ids):
            return " ".join(f"word{it}" if it < 9 else "<|im_end|>" for it in ids)

    words = await words_of(Spacing(), "word1 word2 word3", (1, 2, 3, 9))
    assert [it.text for it in words] == ["word1 ", "word2", " word3 ", ""]


@pytest.mark.parametrize("said", ["", "word1", "word1 word2 word4 <|im_end|>", "\ufffd"])
async def test_texts_that_do_not_add_up_are_no_words(said):
    class Wrong(ToyScorer):
        token_texts = None

        async def detokenize(self, ids):
            if len(ids) == 10:
                return said
            return " ".join(f"word{it}" if it < 10 else "<|im_end|>" for it in ids)

    assert await words_of(Wrong(), "word1 word2 word3", range(1, 11)) is None


async def test_a_server_is_asked_three_times_for_a_response(scorer):
    ids = await scorer.tokenize("the answer is the answer<|im_end|>")
    said = ("the answer is the answer", ids)
    found = await spoken_words(saying(said, said), {"r0"}, scorer)
    assert found.keys() == {"r0"}
    assert len(scorer.asked) == 3


async def test_a_scorer_that_only_tokenises_has_no_words(scorer):
    ids = await scorer.tokenize("the answer<|im_end|>")
    scorer.detokenize = None
    assert await words_of(scorer, "the answer", ids) is None


@pytest.mark.parametrize("error", [ScorerError("it is down"), ZeroDivisionError("ouch")])
async def test_a_scorer_that_fails_costs_the_words_only(caplog, error):
    class Failing(ToyScorer):
        async def token_texts(self, ids):
            raise error

    with caplog.at_level(logging.INFO, "mindscore"):
        assert await spoken_words(saying(("yes", (1,))), {"r0"}, Failing()) == {}
    assert str(error) in caplog.text


def test_lengths_are_those_of_javascript():
    assert as_cuts([Word("a\U0001f600", 2), Word("\ud800", 1), Word("", 1)]) == [3, 2, 1, 1, 0, 1]
