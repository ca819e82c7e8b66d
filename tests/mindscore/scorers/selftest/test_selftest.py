"""The self-test: what a healthy scorer passes, what each kind of wrong answer is called."""

import asyncio
import itertools
import math
import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import RangeScore, ScorerError, ScoreResult, ScorerUnavailable, WirePrompt
from mindscore.config.settings import ServerSettings
from mindscore.conversation.native import read_transcript
from mindscore.measure.usage import Usage
from mindscore.scorers.local.scorer import LocalScorer
from mindscore.scorers.local.weights import locate
from mindscore.scorers.selftest import ensure_tested, self_test
from mindscore.scorers.selftest import tester as passed
from mindscore.scorers.selftest.probe import make_probe
from mindscore.scorers.tokenizer import FileTokenizer
from mindscore.scorers.toy import ToyScorer

DEMO = Path(__file__).parents[4] / "plugin" / "mindscore" / "demo" / "conversation.jsonl"
TEXT = (
    "<|im_start|>system You are a helpful assistant of a small library in the old town. Answer in "
    "one or two short sentences, and say so when you do not know. Books go out for three weeks; "
    "films and maps for one. The reading room closes at six on weekdays, at noon on Saturdays. "
    "Children under twelve need a card signed by a parent. Lost cards cost two crowns. Notes from "
    "earlier talks follow.<|im_end|> <|im_start|>memory Mr. Lindqvist prefers large print, and "
    "asks for sea stories first.<|im_end|> <|im_start|>user Which novels about ships do we have in "
    "large print, and until when may I keep one?<|im_end|> <|im_start|>assistant There are four, "
    "all by Conrad; each may stay with you until the ninth of May.<|im_end|>"
)
TOKENS = asyncio.run(ToyScorer().tokenize(TEXT))


class Values(ToyScorer):
    """The toy, from its tokens' values; what a subclass does to them is a fault or noise."""

    self_tested = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[WirePrompt]] = []

    async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
        self.calls.append(list(prompts))
        return ScoreResult([await self.answer(prompt) for prompt in prompts])

    async def answer(self, prompt: WirePrompt) -> list[RangeScore]:
        values = await self.values(list(prompt.tokens))
        return [RangeScore(math.fsum(values[start:end])) for start, end in prompt.ranges]

    async def values(self, tokens: list[int]) -> list[float]:
        """One value per token; the first is 0."""
        spans = tuple((index, index + 1) for index in range(1, len(tokens)))
        names = tuple(map(str, spans))
        [scores] = (
            await ToyScorer.score(self, [WirePrompt(tuple(tokens), (), spans, names)])
        ).ranges
        return [0.0, *(score.total for score in scores)]


# -- what passes ----------------------------------------------------------------------------------


async def test_the_toy_passes_in_three_calls_and_four_prompts_of_192_tokens() -> None:
    scorer = Values()
    await self_test(scorer, TOKENS * 9)
    assert [len(prompts) for prompts in scorer.calls] == [2, 1, 1]
    sent = [prompt for prompts in scorer.calls for prompt in prompts]
    assert max(len(prompt.tokens) for prompt in sent) <= 192
    await self_test(ToyScorer(), TOKENS)


async def test_nothing_is_sent_that_is_not_of_the_text_s_first_192_tokens() -> None:
    scorer = Values()
    await self_test(scorer, [*TOKENS, *range(192), *range(7000, 7100)])
    for prompt in scorer.calls[0] + scorer.calls[1] + scorer.calls[2]:
        assert set(prompt.tokens) <= {*TOKENS, *range(192 - len(TOKENS))}
        assert prompt.tokens[0] == TOKENS[0]


# A quarter of the ids is new each time, so that there are enough; all sizes of vocabulary.
vocabularies = st.sampled_from([1, 2, 10, 19, 30, 60, 1000])
texts = vocabularies.flatmap(lambda size: st.lists(st.integers(0, size), min_size=32, max_size=260))


@given(tokens=texts | st.lists(st.integers(0, 2**20), min_size=32, max_size=60, unique=True))
def test_the_toy_passes_with_any_tokens(tokens: list[int]) -> None:
    asyncio.run(self_test(Values(), tokens))


@given(tokens=st.lists(st.integers(0, 3), max_size=40))
def test_the_toy_passes_with_few_tokens(tokens: list[int]) -> None:
    asyncio.run(self_test(Values(), tokens))


@given(tokens=st.lists(st.integers(0, 300), min_size=23, max_size=260))
def test_the_prompts_are_of_one_length_and_differ_where_they_should(tokens: list[int]) -> None:
    probe = make_probe(tokens)
    if probe is None:
        assert len(set(tokens[:192]) - {tokens[0]}) < 23
        return
    assert len(probe.told) == len(probe.untold) == len(probe.shuffled) <= 192
    covered = [index for start, end in probe.all_spans for index in range(start, end)]
    assert covered == list(range(1, len(probe.told)))
    start, end = probe.first_time[0][0], probe.first_time[-1][1]
    assert probe.told[:start] == probe.untold[:start] == tuple(tokens[:start])
    assert probe.told[end:] == probe.untold[end:]
    assert Counter(probe.told) == Counter(probe.shuffled)
    assert set(probe.told[start:end]).isdisjoint(probe.told[:start] + probe.untold[start:end])
    for (at, _), (beside, _) in zip(probe.surprises, probe.expected, strict=True):
        assert at == beside + 1
        assert probe.told.count(probe.told[at]) == 1
        assert probe.told[beside] in probe.told[start:end]
    for at, _ in probe.shuffled_surprises:
        assert probe.shuffled.count(probe.shuffled[at]) == 1
    for at, _ in probe.shuffled_expected:
        assert probe.shuffled[at] in probe.shuffled[start:end]


class Noisy(Values):
    def __init__(self, noise: Callable[[float], float]) -> None:
        super().__init__()
        self.noise = noise

    async def values(self, tokens: list[int]) -> list[float]:
        return [self.noise(value) for value in await super().values(tokens)]


def bfloat16(value: float) -> float:
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    [cut] = struct.unpack("<f", struct.pack("<I", (bits + 0x8000) & 0xFFFF0000))
    return cut


@pytest.mark.parametrize("seed", range(20))
async def test_noise_passes(seed: int) -> None:
    chance = random.Random(seed)
    for length in (32, 64, 192):
        # The most that was reported of servers, per token; and of a model in 4 bits, now and then.
        await self_test(Noisy(lambda it: it - chance.gauss(0, 0.07)), TOKENS[:length])
        spikes = Noisy(lambda it: it - (0.36 if chance.random() < 0.2 else 0.0))
        await self_test(spikes, TOKENS[:length])
        rough = Noisy(lambda it: min(0.0, bfloat16(it + chance.uniform(-0.06, 0.06))))
        await self_test(rough, TOKENS[:length])


# -- what does not --------------------------------------------------------------------------------


class ShiftedToFront(Values):
    async def values(self, tokens):
        return [*(await super().values(tokens))[1:], -1.0]


class ShiftedToBack(Values):
    async def values(self, tokens):
        return [0.0, *(await super().values(tokens))[:-1]]


class ShiftedWhenLate(Values):
    """Right from the start of a prompt, shifted where the first range begins later."""

    async def answer(self, prompt):
        values = await self.values(list(prompt.tokens))
        values = [*values[1:], -1.0] if prompt.ranges[0][0] > 1 else values
        return [RangeScore(math.fsum(values[start:end])) for start, end in prompt.ranges]


class ConditionedOnItself(Values):
    async def values(self, tokens):
        counts, values = Counter(tokens[:1]), [0.0]
        for index, token in enumerate(tokens[1:], start=1):
            counts[token] += 1
            values.append(math.log((counts[token] + 2**-16) / (index + 17)))
        return values


class Constant(Values):
    async def values(self, tokens):
        return [-1.0] * len(tokens)


class Zero(Values):
    async def values(self, tokens):
        return [0.0] * len(tokens)


class ConstantTotal(Values):
    async def answer(self, prompt):
        return [RangeScore(-3.5) for _ in prompt.ranges]


class Cached(Values):
    """Answers from a cache whose key leaves out most of the prompt."""

    key = staticmethod(len)

    def __init__(self):
        super().__init__()
        self.known = {}

    async def values(self, tokens):
        return self.known.setdefault(self.key(tokens), await super().values(tokens))


class CachedByBeginning(Cached):
    key = staticmethod(lambda tokens: tuple(tokens[:8]))


class OneBehind(Values):
    async def values(self, tokens):
        values = await super().values(tokens)
        before, self.before = getattr(self, "before", values), values
        return before


class CachedContext(Values):
    """Computes the end of a prompt after what it remembers of another prompt's middle."""

    async def values(self, tokens):
        self.first = getattr(self, "first", tokens)
        pairs = zip(self.first, tokens, strict=True)
        end = max((index for index, (one, other) in enumerate(pairs) if one != other), default=0)
        remembered = await super().values([*self.first[: end + 1], *tokens[end + 1 :]])
        return [*(await super().values(tokens))[: end + 1], *remembered[end + 1 :]]


class SwappedBatch(Values):
    async def score(self, prompts):
        return ScoreResult((await super().score(prompts)).ranges[::-1])


class Random(Values):
    async def values(self, tokens):
        return [random.uniform(-9, 0) for _ in tokens]


class RandomByPrompt(Values):
    async def values(self, tokens):
        chance = random.Random(str(tokens))
        return [chance.uniform(-9, 0) for _ in tokens]


class Unigram(Values):
    """The same value for a token wherever it is."""

    async def values(self, tokens):
        return [-float(token % 12) for token in tokens]


class Means(Values):
    """Means for totals."""

    async def answer(self, prompt):
        totals = await super().answer(prompt)
        spans = zip(totals, prompt.ranges, strict=True)
        return [RangeScore(it.total / (end - start)) for it, (start, end) in spans]


class ClosedRanges(Values):
    """Ranges that end one token late."""

    async def answer(self, prompt):
        values = await self.values(list(prompt.tokens))
        return [RangeScore(math.fsum(values[start : end + 1])) for start, end in prompt.ranges]


class ReadsBackwards(Values):
    """Each token given what comes after it."""

    async def values(self, tokens):
        return (await super().values(tokens[::-1]))[::-1]


class OtherWords(Values):
    """Order matters to this model, and that of the text is the least likely one."""

    async def values(self, tokens):
        known = set(itertools.pairwise(TOKENS))
        values = await super().values(tokens)
        for index in range(1, len(tokens)):
            values[index] -= random.Random(str(tokens[:index])).uniform(0, 1.5)
            values[index] -= 2.0 * ((tokens[index - 1], tokens[index]) in known)
        return values


@pytest.mark.parametrize(
    ("faulty", "named"),
    [
        (ShiftedToFront, "alignment: .* shifted by one token"),
        (ShiftedToBack, "alignment: .* shifted by one token"),
        (ShiftedWhenLate, "same prompt twice: "),
        (ConditionedOnItself, "alignment: .* shifted by one token"),
        (Constant, "constant: every token has the log-probability -1: "),
        (Zero, "constant: every token has the log-probability 0: "),
        (ConstantTotal, r"constant: every range has the log-probability -3\.5: "),
        (Cached, "stale answers: .* from a cache"),
        (CachedByBeginning, "stale answers: .* from a cache"),
        (OneBehind, "same prompt twice: .* cache"),
        (CachedContext, "context: .* or answers from a cache"),
        (SwappedBatch, "order of answers: .* got the other's answer"),
        (Random, "same prompt twice: "),
        (RandomByPrompt, "what comes later: |alignment: |context: "),
        (Unigram, "alignment: |context: "),
        (Means, "sums of ranges: "),
        (ClosedRanges, "sums of ranges: "),
        (ReadsBackwards, "what comes later: "),
        (OtherWords, r"natural order: .* server\.tokenizer"),
    ],
)
@pytest.mark.parametrize("length", [32, 64, 192])
async def test_a_fault_is_found_and_named(faulty, named: str, length: int) -> None:
    if faulty is OtherWords and length == 32:
        pytest.skip("too few tokens to tell orders apart")
    with pytest.raises(
        ScorerError, match=rf"^{faulty.__name__}, model 'toy', failed .*{named}"
    ) as it:
        await self_test(faulty(), TOKENS[:length])
    assert "--no-self-test or set server.self_test = false" in str(it.value)
    assert "\n" not in str(it.value)


@pytest.mark.parametrize(
    ("total", "said"), [(math.nan, "not finite"), (math.inf, "not finite"), (2.5, "above 0")]
)
async def test_what_is_no_log_probability_is_refused(total: float, said: str) -> None:
    class Wrong(Values):
        async def answer(self, prompt):
            return [RangeScore(total) for _ in prompt.ranges]

    with pytest.raises(ScorerError, match=rf"Wrong, model 'toy', during the self-test: .*{said}"):
        await self_test(Wrong(), TOKENS)


async def test_too_few_answers_are_refused() -> None:
    class Silent(Values):
        async def score(self, prompts):
            return ScoreResult((await super().score(prompts)).ranges[:-1])

    with pytest.raises(ScorerError, match=r"during the self-test: .*asked for"):
        await self_test(Silent(), TOKENS)


async def test_the_scorer_s_own_error_says_when_it_happened() -> None:
    class Omits(Values):
        async def score(self, prompts):
            raise ScorerError("http://host: prompt_logprobs: missing; update the server")

    with pytest.raises(ScorerError, match=r"during the self-test: http.* missing; update the se"):
        await self_test(Omits(), TOKENS)


async def test_a_name_cannot_write_on_the_terminal() -> None:
    scorer = Constant()
    scorer.model = "m\x1b[2J"
    with pytest.raises(ScorerError, match=r"model '.*x1b\[2J'"):
        await self_test(scorer, TOKENS)


# -- text with next to nothing in it --------------------------------------------------------------


@pytest.mark.parametrize("tokens", [[1, 2] * 40, list(range(9))])
@pytest.mark.parametrize(("faulty", "named"), [(Constant, "constant"), (Means, "sums of ranges")])
async def test_text_too_uniform_still_shows_constants_and_wrong_sums(faulty, named, tokens) -> None:
    with pytest.raises(ScorerError, match=named):
        await self_test(faulty(), tokens)


async def test_a_model_that_is_certain_of_uniform_text_passes() -> None:
    await self_test(Zero(), [5] * 100)


@pytest.mark.parametrize("count", range(4))
async def test_with_nothing_to_test_nothing_is_asked(count: int, caplog) -> None:
    scorer = Values()
    with caplog.at_level("DEBUG", "mindscore"):
        await self_test(scorer, [1, 2, 3][:count])
    assert scorer.calls == []
    assert f"first {count} tokens" in caplog.text


# -- what is remembered ---------------------------------------------------------------------------

DAY = 24 * 3600.0
SETTINGS = ServerSettings(scorer="vllm", base_url="http://secret-host:8000/v1", model="toy")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is remembered, in a folder of the test's own; the process knows none."""
    monkeypatch.setattr(platformdirs, "user_data_path", lambda name: tmp_path / "cache" / name)
    monkeypatch.setattr(passed, "_passed", {})
    return tmp_path / "cache" / "mindscore" / "self-tests.json"


@pytest.fixture
def new_process(file: Path) -> Callable[[], None]:
    """Forgets what this process knows by itself."""
    return lambda: passed._passed.clear()


async def is_tested(scorer=None, settings: ServerSettings = SETTINGS, tokens=TOKENS) -> bool:
    """Whether the server was asked anything."""
    scorer = scorer or Values()
    await ensure_tested(scorer, settings, tokens)
    return bool(scorer.calls)


async def test_a_server_is_tested_once_per_process_and_in_the_next_one_not(new_process) -> None:
    assert await is_tested()
    assert not await is_tested()
    new_process()
    assert not await is_tested()


async def test_nothing_is_tested_where_the_settings_or_the_scorer_say_no(file: Path) -> None:
    assert not await is_tested(settings=ServerSettings(self_test=False))
    unasked = Values()
    unasked.self_tested = False
    assert not await is_tested(unasked)
    await ensure_tested(ToyScorer(), SETTINGS, TOKENS)
    assert not file.exists()


async def test_each_server_model_and_scorer_is_tested_for_itself(file: Path) -> None:
    assert await is_tested()
    other_model, other_kind = Values(), Noisy(lambda value: value)
    other_model.model = "other"
    assert await is_tested(other_model)
    assert await is_tested(other_kind)
    assert await is_tested(settings=ServerSettings(base_url="http://other:8000/v1"))
    options = {"path": "generate", "other": {1, 2}}
    assert await is_tested(settings=ServerSettings(base_url=SETTINGS.base_url, options=options))
    assert not await is_tested()
    assert file.read_text().count(":") == 5


async def test_what_is_sent_is_counted_and_of_retries_too(file: Path) -> None:
    class Busy(Values):
        sent = 0

        async def score(self, prompts: Sequence[WirePrompt]) -> ScoreResult:
            self.sent += sum(len(it.tokens) for it in prompts)
            if self.sent == sum(len(it.tokens) for it in prompts):
                raise ScorerUnavailable("busy", retry_after=0.0)
            return ScoreResult.of(await super().score(prompts))

    scorer, usage = Busy(), Usage()
    await ensure_tested(scorer, SETTINGS, TOKENS, usage)
    assert usage.sent_tokens == scorer.sent > 0
    assert (usage.calls, usage.prompt_tokens) == (0, 0)
    await ensure_tested(scorer, SETTINGS, TOKENS, usage)
    assert usage.sent_tokens == scorer.sent


async def test_neither_the_address_nor_the_text_is_in_the_file(file: Path) -> None:
    await is_tested()
    assert file.stat().st_size < 100
    assert "secret" not in file.read_text()
    assert [it.name for it in file.parent.iterdir()] == [file.name]


async def test_a_failed_test_is_not_remembered(file: Path) -> None:
    for _ in range(2):
        with pytest.raises(ScorerError, match="constant"):
            await ensure_tested(Constant(), SETTINGS, TOKENS)
    assert not file.exists()


async def test_a_test_of_text_with_nothing_in_it_is_not_remembered(file: Path) -> None:
    assert await is_tested(tokens=[5] * 100)
    assert await is_tested(tokens=[5] * 100)
    assert not file.exists()


async def test_a_test_of_little_text_is_not_remembered(file: Path) -> None:
    assert await is_tested(tokens=TOKENS[:32])
    assert await is_tested(tokens=TOKENS[:32])
    assert not file.exists()


async def test_a_passed_test_counts_for_7_days(clock, new_process) -> None:
    assert await is_tested()
    clock.now += 7 * DAY - 1
    assert not await is_tested()
    new_process()
    assert not await is_tested()
    clock.now += 1
    assert await is_tested()
    clock.now += 7 * DAY
    assert await is_tested()


async def test_one_from_the_future_does_not_count(clock, new_process) -> None:
    assert await is_tested()
    clock.now -= DAY
    new_process()
    assert await is_tested()


async def test_what_has_expired_leaves_the_file(clock, file: Path) -> None:
    await is_tested()
    clock.now += 8 * DAY
    await is_tested(settings=ServerSettings(base_url="http://other:8000/v1"))
    assert file.read_text().count(":") == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"a": "b"}', b'{"a": null}', b"null", b"[" * 100_000],
)
async def test_a_corrupt_file_counts_as_not_tested_and_is_replaced(
    content: bytes, file: Path, new_process
) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    assert await is_tested()
    new_process()
    assert not await is_tested()


async def test_a_file_that_cannot_be_read_or_written_is_no_error(file: Path, new_process) -> None:
    file.mkdir(parents=True)
    assert await is_tested()
    assert not await is_tested()
    new_process()
    assert await is_tested()
    assert [it.name for it in file.parent.iterdir()] == [file.name]


async def test_a_folder_that_cannot_be_made_is_no_error(file: Path, new_process) -> None:
    file.parent.parent.write_text("in the way")
    assert await is_tested()
    new_process()
    assert await is_tested()


async def test_the_process_goes_by_the_clock_of_the_day(file: Path) -> None:
    before = time.time()
    await is_tested()
    [when] = passed._read(file).values()
    assert before <= when <= time.time()


# -- the real model -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def talk() -> list[int]:
    """The ids of the bundled conversation."""

    async def ids() -> list[int]:
        tokenizer = FileTokenizer(Path(locate("smollm2")) / "tokenizer.json")
        context = await read_transcript(DEMO).context(tokenizer.tokenize)
        return list(context.wire_prompt(range(len(context.conversation)), lambda _: False).tokens)

    return asyncio.run(ids())


@pytest.fixture(scope="module")
def real():
    """Makes a scorer of SmolLM2 whose values are read ``rows`` after the right one."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(locate("smollm2"), dtype=torch.float32).eval()

    @cache
    def computed(tokens: tuple[int, ...]) -> list[list[float]]:
        """The tokens' values by the rows before them, and by their own."""
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            logprobs = model(input_ids=ids).logits[0].log_softmax(1)
        at = torch.arange(len(tokens)) - 1
        return [logprobs[(at + rows).clamp(0), ids[0]].tolist() for rows in (0, 1)]

    class Real(Values):
        def __init__(self, rows: int = 0, late: int = 0) -> None:
            super().__init__()
            self.rows, self.late = rows, late

        async def values(self, tokens):
            right = computed(tuple(tokens))[self.rows]
            return (right + right[-1:] * 9)[self.late :]

    return Real


@pytest.mark.model
@pytest.mark.parametrize(("start", "length"), [(0, 192), (0, 32), (0, 64), (400, 192), (900, 150)])
async def test_the_real_model_passes(talk: list[int], real, start: int, length: int) -> None:
    await self_test(real(), talk[start : start + length])


@pytest.mark.model
async def test_the_local_scorer_passes(talk: list[int]) -> None:
    scorer = LocalScorer({})
    await self_test(scorer, talk)
    await scorer.aclose()


@pytest.mark.model
@pytest.mark.parametrize(("start", "length"), [(0, 192), (0, 32), (400, 192)])
@pytest.mark.parametrize("fault", [{"rows": 1}, {"late": 1}, {"late": 2}])
async def test_the_real_model_s_values_of_other_tokens_are_found(
    talk: list[int], real, fault, start: int, length: int
) -> None:
    with pytest.raises(ScorerError, match="alignment"):
        await self_test(real(**fault), talk[start : start + length])


@pytest.mark.model
@pytest.mark.parametrize("seed", range(3))
async def test_ids_of_another_tokenizer_are_found(talk: list[int], real, seed: int) -> None:
    other = list(range(49_152))
    random.Random(seed).shuffle(other)
    with pytest.raises(ScorerError, match=r"natural order: .*server\.tokenizer"):
        await self_test(real(), [other[it] for it in talk[:192]])
