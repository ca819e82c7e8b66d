"""Texts of samples: from a tokenizer's file, else from the scorer, when they are wanted."""

import json
import subprocess
import sys

import pytest

from mindscore._util.errors import ConfigError
from mindscore.scorers.tokenizer import FileTokenizer
from mindscore.training.texts import Texts


@pytest.fixture
def by_file(tokenizer_file, tables):
    return Texts(tables(server={"tokenizer": str(tokenizer_file)}))


async def said(tokenizer_file, *texts):
    return [tuple(await FileTokenizer(tokenizer_file).tokenize(text)) for text in texts]


async def test_texts_are_those_of_the_ids_special_tokens_included(by_file, tokenizer_file, sample):
    prompt, answer, other = "<|im_start|>user\nyes?<|im_end|>\n", "yes<|im_end|>", "no<|im_end|>"
    ids = await said(tokenizer_file, prompt, answer, other)
    made = sample(bare_context_ids=ids[0], continuation_ids=ids[1], alternate_ids=ids[2])
    [found] = await by_file.added([made])
    texts = (found.context_text, found.continuation_text, found.rejected_text)
    assert texts == (prompt, answer, other)
    assert by_file.inexact == 0


async def test_where_there_is_no_other_answer_it_has_no_text(by_file, tokenizer_file, sample):
    [ids] = await said(tokenizer_file, "yes")
    made = sample(bare_context_ids=ids, continuation_ids=ids, alternate_ids=None)
    [found] = await by_file.added([made])
    assert (found.continuation_text, found.rejected_text) == ("yes", None)


async def test_a_text_that_does_not_give_the_ids_back_is_counted(by_file, tokenizer_file, sample):
    whole, begin, end = await said(tokenizer_file, "answer", "ans", "wer")
    assert whole != begin + end
    apart = sample(bare_context_ids=begin, continuation_ids=end)
    await by_file.added([apart, apart])
    assert by_file.inexact == 2


async def test_texts_that_are_there_are_left(by_file, tables, sample, tokenizer_file):
    [ids] = await said(tokenizer_file, "yes")
    made = sample(bare_context_ids=ids, continuation_ids=ids, alternate_ids=None)
    once = await by_file.added([made])
    without = Texts(tables(server={"tokenizer": "/no/such/file"}))
    assert await without.added(once) == once


async def test_a_scorer_that_makes_no_text_is_an_error_that_names_the_format_without(
    tables, sample
):
    texts = Texts(tables())
    try:
        with pytest.raises(ConfigError, match=r"toy scorer.*server\.tokenizer.*input_ids"):
            await texts.added([sample()])
    finally:
        await texts.aclose()


async def test_nothing_is_built_before_texts_are_wanted(tables):
    texts = Texts(tables(server={"scorer": "nobody"}))
    assert await texts.added([]) == []
    await texts.aclose()


# -- the default model's tokenizer ----------------------------------------------------------------


@pytest.fixture(scope="module")
def smollm2():
    """The settings that name SmolLM2's ``tokenizer.json``."""
    from mindscore.scorers.local.weights import locate

    return {"server": {"tokenizer": f"{locate('smollm2')}/tokenizer.json"}}


ANSWERS = [
    "Call Dr. Okafor.",
    "It's 16:30 — 1,234.5 metres…",
    "Zażółć gęślą jaźń 日本語 👩‍🚀 \u200b",
    "```python\n\tif x:\n\t\treturn 0\n```",
    "ends in space ",
    "ends in a line\n",
    '<tool_call>\n{"name": "look", "arguments": {"at": 1}}\n</tool_call>',
    "",
]


@pytest.mark.model
async def test_the_text_of_a_conversation_gives_the_very_ids_back(smollm2, sample, tmp_path):
    from mindhooks import ResponseDivergence
    from mindscore.conversation.native import read_transcript
    from mindscore.flows.finetune import make_candidate
    from mindscore.store import Reviewed
    from mindscore.training.outbox import sample_of

    lines = [{"role": "system", "content": "Help.\n"}]
    lines += [{"role": "memory", "key": "k", "content": " Nora drinks tea. "}]
    for answer in ANSWERS:
        lines += [{"role": "user", "content": answer}, {"role": "assistant", "content": answer}]
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tokenizer = FileTokenizer(smollm2["server"]["tokenizer"])
    context = await read_transcript(file).context(tokenizer.tokenize)
    divergences = [
        ResponseDivergence(index, node.id, 1.0, 1.0)
        for index, node in enumerate(context.conversation)
        if node.role == "assistant"
    ]
    candidates = [await make_candidate(context, it, 2) for it in divergences]
    for kind in ("bare", "full"):
        texts = Texts(smollm2)
        samples = [sample_of(Reviewed(it, "m", 0.0, None, ()), kind, "n") for it in candidates]
        made = await texts.added(samples)
        assert texts.inexact == 0
        assert [it.continuation_text for it in made] == [f"{it}<|im_end|>" for it in ANSWERS]


@pytest.mark.model
async def test_an_answer_that_begins_with_empty_lines_does_not_and_is_counted(smollm2, sample):
    tokenizer = FileTokenizer(smollm2["server"]["tokenizer"])
    prompt = tuple(await tokenizer.tokenize("<|im_start|>assistant\n"))
    answer = tuple(await tokenizer.tokenize("\n\nYes.<|im_end|>"))
    texts = Texts(smollm2)
    await texts.added([sample(bare_context_ids=prompt, continuation_ids=answer)])
    assert texts.inexact == 1


def test_no_model_is_loaded_for_what_needs_no_text():
    program = (
        "import asyncio, sys\n"
        "from mindscore.training.outbox import open_outbox\n"
        "async def main():\n"
        "    async with open_outbox({'train': {'sink': 'jsonl'}}) as it:\n"
        "        await it.divide([])\n"
        "asyncio.run(main())\n"
        "print(*{'torch', 'transformers', 'tokenizers'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("\n", "")


async def test_texts_of_samples_are_never_made_by_a_stranger_of_that_name(
    tokenizer_file, tmp_path, monkeypatch, sample
):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_file.read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"server\.tokenizer"):
        await Texts({"server": {"tokenizer": "tokenizer.json"}}).added([sample()])
