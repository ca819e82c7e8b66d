"""A ``tokenizer.json`` as the scorers use it."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from mindhooks import ScorerError
from mindscore._util.errors import ConfigError
from mindscore.scorers.remote.score import ScoreScorer
from mindscore.scorers.tokenizer import FileTokenizer, tokenizer_of

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


def ids(file, *texts):
    async def tokenize():
        tokenizer = FileTokenizer(file)
        return [await tokenizer.tokenize(text) for text in texts]

    return asyncio.run(tokenize())


@pytest.fixture(scope="module")
def decode(tokenizer_file):
    """From ids back to text."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    return lambda tokens: tokenizer.decode(tokens, skip_special_tokens=False)


@pytest.fixture
def altered(tokenizer_file, tmp_path):
    """Makes a copy of the tokenizer file, changed by a function of the tokenizer."""

    def make(change):
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
        change(tokenizer)
        file = tmp_path / "altered.json"
        tokenizer.save(str(file))
        return file

    return make


@given(text=TEXTS)
def test_the_ids_are_those_of_the_whole_text(text, tokenizer_file, decode):
    [tokens] = ids(tokenizer_file, text)

    assert decode(tokens) == text


@given(text=TEXTS)
def test_the_text_of_ids_is_the_text_they_are_of(text, tokenizer_file):
    async def there_and_back():
        tokenizer = FileTokenizer(tokenizer_file)
        return await tokenizer.detokenize(await tokenizer.tokenize(text))

    assert asyncio.run(there_and_back()) == text


async def test_special_tokens_are_part_of_the_text_of_ids(tokenizer_file):
    said = "<|im_start|>user\nyes<|im_end|>\n"
    tokenizer = FileTokenizer(tokenizer_file)
    assert await tokenizer.detokenize(tuple(await tokenizer.tokenize(said))) == said


async def test_a_text_of_ids_needs_a_file_that_can_be_read(tmp_path):
    with pytest.raises(ScorerError, match=r"server\.tokenizer: "):
        await FileTokenizer(tmp_path / "none.json").detokenize([1])


def test_an_empty_text_has_no_ids(tokenizer_file):
    assert ids(tokenizer_file, "") == [[]]


def test_special_tokens_in_a_text_are_recognised(tokenizer_file, decode):
    [tokens] = ids(tokenizer_file, "<|im_start|>user\nyes<|im_end|>\n")

    assert [decode([token]) for token in tokens if token < 2] == ["<|im_start|>", "<|im_end|>"]


def test_no_special_token_is_added(altered, tokenizer_file):
    from tokenizers.processors import TemplateProcessing

    def begin(tokenizer):
        tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A <|im_end|>",
            special_tokens=[("<|im_start|>", 0), ("<|im_end|>", 1)],
        )

    assert ids(altered(begin), "yes") == ids(tokenizer_file, "yes")


def test_a_length_limit_in_the_file_does_not_cut_a_text(altered, tokenizer_file):
    text = "the answer is yes " * 20

    file = altered(lambda tokenizer: tokenizer.enable_truncation(max_length=4))

    assert ids(file, text) == ids(tokenizer_file, text)


def test_padding_in_the_file_does_not_fill_up_a_text(altered, tokenizer_file):
    file = altered(lambda tokenizer: tokenizer.enable_padding(length=64))

    assert ids(file, "yes") == ids(tokenizer_file, "yes")


async def test_many_texts_at_once_are_tokenised_like_one_after_the_other(tokenizer_file):
    texts = [f"the answer is {number}" for number in range(40)]
    tokenizer = FileTokenizer(tokenizer_file)

    at_once = await asyncio.gather(*(tokenizer.tokenize(text) for text in texts))

    assert at_once == [await FileTokenizer(tokenizer_file).tokenize(text) for text in texts]


async def test_the_file_is_read_once(tokenizer_file, tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_bytes(tokenizer_file.read_bytes())
    tokenizer = FileTokenizer(file)

    before = await tokenizer.tokenize("yes")
    file.unlink()

    assert await tokenizer.tokenize("yes") == before


@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"{}", b"[1,\n2", b'{"model": {}}', b"\xff\xfe", b"\n\n{\n"]
)
async def test_a_file_that_is_no_tokenizer_is_an_error_in_one_line(content, tmp_path):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(ScorerError) as caught:
        await FileTokenizer(file).tokenize("text")

    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith("server.tokenizer: ")
    assert str(file) in text


async def test_a_folder_instead_of_a_file_is_an_error(tmp_path):
    with pytest.raises(ScorerError, match=r"server\.tokenizer: "):
        await FileTokenizer(tmp_path).tokenize("text")


async def test_a_file_that_could_not_be_read_is_read_when_it_is_there(tokenizer_file, tmp_path):
    file = tmp_path / "tokenizer.json"
    tokenizer = FileTokenizer(file)
    with pytest.raises(ScorerError):
        await tokenizer.tokenize("yes")

    file.write_bytes(tokenizer_file.read_bytes())

    assert [await tokenizer.tokenize("yes")] == await asyncio.to_thread(ids, tokenizer_file, "yes")


@pytest.mark.parametrize("name", ["tokenizer.json", "models/tokenizer.json"])
def test_a_name_is_never_looked_up_in_the_current_folder(
    name, tokenizer_file, tmp_path, monkeypatch
):
    (tmp_path / "models").mkdir()
    (tmp_path / name).write_bytes(tokenizer_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.tokenizer: .* not written as a path.*\./"):
        tokenizer_of(name)
    with pytest.raises(ConfigError, match=r"server\.tokenizer"):
        ScoreScorer({"base_url": "http://127.0.0.1:1", "tokenizer": name})


async def test_a_path_from_the_current_folder_is_taken(tokenizer_file, tmp_path, monkeypatch):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    found = tokenizer_of("./tokenizer.json")
    assert found is not None
    assert await found.tokenize("yes") == await FileTokenizer(tokenizer_file).tokenize("yes")
    assert tokenizer_of("") is None
