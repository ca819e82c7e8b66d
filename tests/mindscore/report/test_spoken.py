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
from mindscore.session import words as spoken
from mindscore.session.words import Word, as_cuts, spoken_words

TEXTS = st.text(alphabet="theanswrys.,' \n-42\u00e9\u4e2d\u6587\U0001f600", min_size=1, max_size=40)


class TokenizerOnly:
    """A scorer of a server that tokenises; ``asked`` is what it was given."""

    model = "a server's"

    def __init__(self, file):
        self._tokenizer = FileTokenizer(file)
        self.asked = []

    async def tokenize(self, text):
        self.asked.append(text)
        return await self._tokenizer.tokenize(text)


class Detokenizer(TokenizerOnly):
    """A scorer of a model in this process, which says what ids mean, too."""

    def __init__(self, file):
        from tokenizers import Tokenizer

        super().__init__(file)
        self._file = Tokenizer.from_file(str(file))

    async def detokenize(self, ids):
        return self._file.decode(list(ids), skip_special_tokens=False)


@pytest.fixture(params=[TokenizerOnly, Detokenizer], ids=["tokenize", "detokenize"])
def scorer(request, tokenizer_file):
    return request.param(tokenizer_file)


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


@pytest.mark.parametrize("kind", [TokenizerOnly, Detokenizer])
@given(text=TEXTS)
def test_whatever_is_said_its_words_make_up_text_and_tokens(tokenizer_file, kind, text):
    async def check():
        scorer = kind(tokenizer_file)
        ids = await scorer.tokenize(f"{text}<|im_end|>")
        words = await words_of(scorer, text, ids)
        if words is None:
            assert kind is TokenizerOnly
            return
        assert "".join(word.text for word in words) == text
        assert sum(word.tokens for word in words) == len(ids)
        for one, other in pairwise(words):
            joint = one.text[-1:] + other.text[:1]
            assert not re.fullmatch(r"[a-z\u00e9]{2}", joint), "half a word"

    asyncio.run(check())


async def test_what_is_written_without_blanks_is_not_one_word(scorer):
    ids = await scorer.tokenize("\u4e2d\u6587\u4e2d\u6587")
    words = await words_of(scorer, "\u4e2d\u6587\u4e2d\u6587", ids)
    assert [word.text for word in words] == ["\u4e2d", "\u6587"] * 2


async def test_the_toys_words_are_found():
    toy = ToyScorer()
    ids = await toy.tokenize("You drink green tea.<|im_end|>")
    words = await words_of(toy, "You drink green tea.", ids)
    assert [(it.text, it.tokens) for it in words] == [
        ("You", 1), (" drink", 1), (" green", 1), (" tea", 1), (".", 1), ("", 1),
    ]  # fmt: skip


async def test_ids_of_another_tokenizer_have_no_words(tokenizer_file):
    ids = [ord(it) % 200 for it in "the answer"]
    assert await words_of(TokenizerOnly(tokenizer_file), "the answer", ids) is None


async def test_a_response_that_its_ids_spell_in_another_way_is_shown_by_them(tokenizer_file):
    scorer = Detokenizer(tokenizer_file)
    ids = [it for letter in "the call()" for it in await scorer.tokenize(letter)]
    by_letters = await words_of(scorer, "the call()", ids)
    assert [it.text for it in by_letters][:3] == ["the", " ", "call"]
    # A tool call, which the text does not have.
    only_called = await words_of(scorer, "", ids)
    assert "".join(it.text for it in only_called) == "the call()"


async def test_a_blank_that_a_tokenizer_drops_where_it_comes_first_is_found():
    class Dropping(ToyScorer):
        async def detokenize(self, ids):
            return " ".join(f"word{it}" for it in ids)

    words = await words_of(Dropping(), "", (1, 2, 3))
    assert [it.text for it in words] == ["word1", " word2", " word3"]


async def test_what_a_server_tokenises_it_is_asked_once(tokenizer_file):
    scorer = TokenizerOnly(tokenizer_file)
    ids = await scorer.tokenize("the answer is the answer")
    scorer.asked.clear()
    said = ("the answer is the answer", ids)
    found = await spoken_words(saying(said, said), {"r0", "r1"}, scorer)
    assert found["r0"] == found["r1"]
    assert sorted(scorer.asked) == [" answer", " is", " the", "the"]


async def test_a_server_is_not_asked_for_ever(scorer, monkeypatch):
    texts = ("the the", "yes no, 42: user answer system")
    said = [(text, await scorer.tokenize(text)) for text in texts]
    monkeypatch.setattr(spoken, "MOST_ASKED", 4)
    scorer.asked.clear()
    found = await spoken_words(saying(*said), {"r0", "r1"}, scorer)
    assert "r1" not in found
    assert len(scorer.asked) <= 4


async def test_a_server_that_does_not_detokenise_after_all_tokenises(tokenizer_file):
    class Half(TokenizerOnly):
        async def detokenize(self, ids):
            raise ScorerError("404")

    scorer = Half(tokenizer_file)
    ids = await scorer.tokenize("the answer")
    assert [it.text for it in await words_of(scorer, "the answer", ids)] == ["the", " answer"]


async def test_only_the_responses_asked_for_are_taken_apart(tokenizer_file):
    scorer = TokenizerOnly(tokenizer_file)
    said = [(text, await scorer.tokenize(text)) for text in ("yes", "no")]
    assert (await spoken_words(saying(*said), {"r1"}, scorer)).keys() == {"r1"}


@pytest.mark.parametrize("error", [ScorerError("it cannot tokenise"), ZeroDivisionError("ouch")])
async def test_a_scorer_that_fails_costs_the_words_only(caplog, error):
    class Failing(ToyScorer):
        async def tokenize(self, text):
            raise error

    with caplog.at_level(logging.INFO, "mindscore"):
        assert await spoken_words(saying(("yes", (1,))), {"r0"}, Failing()) == {}
    assert str(error) in caplog.text


def test_lengths_are_those_of_javascript():
    assert as_cuts([Word("a\U0001f600", 2), Word("\ud800", 1), Word("", 1)]) == [3, 2, 1, 1, 0, 1]
