"""``mindscore export``: what is accepted as a file that trainers load."""

import json

import pytest

from mindscore.scorers.tokenizer import FileTokenizer


@pytest.fixture
def export(cli, tmp_path, tokenizer_file):
    """Runs ``mindscore export`` to ``out.jsonl``, with a tokenizer: ``export("--unreviewed")``."""
    options = ["--set", "server.scorer=toy", "--set", f"server.tokenizer={tokenizer_file}"]
    return lambda *arguments: cli("export", tmp_path / "out.jsonl", *arguments, *options)


@pytest.fixture
def lines(tmp_path):
    """What is in ``out.jsonl``."""
    return lambda: [json.loads(it) for it in (tmp_path / "out.jsonl").read_bytes().splitlines()]


def test_what_is_accepted_is_written_and_nothing_is_marked(
    export, lines, candidates, cli, tmp_path
):
    candidates(one="accepted", two=None, three="rejected", four="alternate")
    for _ in range(2):
        ran = export()
        assert (ran.status, ran.err) == (0, "")
        assert ran.out.splitlines() == [
            f"wrote 2 responses (8 tokens), without memories, to {tmp_path}/out.jsonl",
            f"where each line comes from: {tmp_path}/out.provenance.json",
            "left out: 1 wait for review: mindscore review, or --unreviewed",
            "left out: 1 rejected in review",
        ]
        assert [it["labels"] for it in lines()] == [[-100, -100, 10, 5], [-100, -100, 13, 6]]
    cli("store", "export", "--trained", tmp_path / "trained.json")
    assert json.loads((tmp_path / "trained.json").read_text()) == []


def test_what_a_sink_has_is_written_too(export, lines, candidates, cli, tmp_path):
    candidates(one="accepted")
    cli("train", "--set", "train.sink=jsonl", "--set", f"train.folder={tmp_path}/out")
    assert export().status == 0
    assert len(lines()) == 1


def test_the_provenance_is_of_each_line_in_order(export, candidates, tmp_path):
    candidates(one="accepted", two="alternate")
    export("--set", "store.namespace=default", "--set", "train.context=full")
    said = json.loads((tmp_path / "out.provenance.json").read_text())["lines"]
    assert [it["node_id"] for it in said] == ["one", "two"]
    assert [it["answer"] for it in said] == ["response", "alternate"]
    assert {it["context"] for it in said} == {"full"}
    assert {(it["namespace"], it["model"]) for it in said} == {("default", "m")}


async def texts(tokenizer_file, *given):
    tokenizer = FileTokenizer(tokenizer_file)
    return [tuple(await tokenizer.tokenize(text)) for text in given]


@pytest.fixture
def spoken(candidates, tokenizer_file):
    """Keeps a candidate ``one`` that says something: ``spoken("accepted")``."""
    import asyncio

    prompt = "<|im_start|>memory\nTea.<|im_end|>\n<|im_start|>user\nyes?<|im_end|>\n"
    prompt += "<|im_start|>assistant\n"
    said = (prompt, "yes<|im_end|>", "no<|im_end|>")
    ids = asyncio.run(texts(tokenizer_file, *said))
    names = ("bare_context_ids", "continuation_ids", "alternate_ids")

    def keep(decision):
        candidates(fields=dict(zip(names, ids, strict=True)), one=decision)
        return said

    return keep


SHAPES = {
    "prompt_completion": lambda prompt, yes, no: {"prompt": prompt, "completion": yes},
    "preference": lambda prompt, yes, no: {"prompt": prompt, "chosen": yes, "rejected": no},
    "messages": lambda *_: {
        "messages": [
            {"role": "system", "content": "Tea."},
            {"role": "user", "content": "yes?"},
            {"role": "assistant", "content": "yes"},
        ]
    },
}


@pytest.mark.parametrize("by", ["option", "settings"])
@pytest.mark.parametrize("name", SHAPES)
def test_each_format_has_its_shape(export, lines, spoken, name, by):
    said = spoken("accepted")
    options = ["--format", name] if by == "option" else ["--set", f"train.format={name}"]
    assert export(*options).status == 0
    assert lines() == [SHAPES[name](*said)]


def test_a_preference_for_the_alternate_is_one_over_the_response(export, lines, spoken):
    prompt, yes, no = spoken("alternate")
    assert export("--format", "preference").status == 0
    assert lines() == [{"prompt": prompt, "chosen": no, "rejected": yes}]


def test_what_has_no_other_answer_is_no_preference_and_is_counted(
    export, lines, spoken, candidates
):
    spoken("accepted")
    candidates(fields={"alternate_ids": None}, two="accepted", three="accepted")
    ran = export("--format", "preference")
    assert ran.status == 0
    assert "left out: 2 without a second answer, which the format preference needs" in ran.out
    assert len(lines()) == 1


def test_texts_that_are_other_tokens_are_counted(export, candidates, tokenizer_file):
    import asyncio

    [begin, end] = asyncio.run(texts(tokenizer_file, "ans", "wer"))
    fields = {"bare_context_ids": begin, "continuation_ids": end, "alternate_ids": None}
    candidates(fields=fields, one="accepted")
    assert "1 text would be tokenised differently" in export("--format", "prompt_completion").out
    assert "tokenised" not in export().out


NOTHING = {
    "nothing": ({}, [], "no candidates are kept"),
    "all wait": ({"one": None}, [], "1 wait for review: mindscore review, or --unreviewed"),
    "all rejected": ({"one": "rejected"}, ["--unreviewed"], "1 rejected in review"),
    "no pair": (
        {"fields": {"alternate_ids": None}, "one": "accepted"},
        ["--format", "preference"],
        "1 without a second answer",
    ),
}


@pytest.mark.parametrize(("kept", "options", "why"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_written_where_there_is_nothing(
    kept, options, why, export, candidates, tmp_path
):
    candidates(**kept)
    ran = export(*options)
    assert (ran.status, ran.out) == (1, "")
    assert ran.error.startswith(f"nothing to write: {why}")
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "out.provenance.json").exists()


def test_what_nobody_reviewed_is_written_where_that_is_said(export, lines, candidates):
    candidates(one=None)
    assert export("--unreviewed").status == 0
    assert len(lines()) == 1


def test_another_format_is_refused_with_those_there_are(export, candidates):
    candidates(one="accepted")
    ran = export("--format", "parquet")
    assert (ran.status, ran.out) == (2, "")
    assert "input_ids, prompt_completion, messages, preference" in ran.error


def test_what_is_no_chatml_is_an_error_that_names_the_response(export, candidates, tmp_path):
    candidates(one="accepted")
    ran = export("--format", "messages")
    assert (ran.status, ran.out) == (1, "")
    assert "'one'" in ran.error
    assert "input_ids" in ran.error
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize("place", [".", "gone/out.jsonl"])
def test_a_file_that_cannot_be_written_is_named(cli, candidates, tmp_path, place):
    candidates(one="accepted")
    ran = cli("export", tmp_path / place)
    assert (ran.status, ran.out) == (2, "")
    assert "cannot be written" in ran.error


def test_a_scorer_that_makes_no_text_is_a_wrong_configuration(cli, candidates, tmp_path):
    candidates(one="accepted")
    out = tmp_path / "out.jsonl"
    ran = cli("export", out, "--format", "messages", "--set", "server.scorer=toy")
    assert (ran.status, ran.out) == (2, "")
    assert "server.tokenizer" in ran.error
    assert not out.exists()


def test_of_several_models_one_has_to_be_chosen(export, lines, candidates):
    candidates(one="accepted")
    candidates(model="other", two="accepted", three="accepted")
    assert "--model" in export().error
    assert export("--model", "other").status == 0
    assert len(lines()) == 2
