"""Run the self-test, and remember for a week which servers have passed it."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import platformdirs

from mindhooks import (
    Scorer,
    ScorerCapabilities,
    ScorerError,
    ScoreResult,
    WirePrompt,
    in_thread,
)
from mindscore._util.errors import format_error
from mindscore._util.files import write_whole
from mindscore._util.text import printable
from mindscore.config.settings import ServerSettings
from mindscore.measure.divergence import check_answers
from mindscore.measure.retry import Retry, awaited
from mindscore.measure.usage import Usage, count_sent
from mindscore.scorers.selftest.checks import (
    Answers,
    Totals,
    first_fault,
    one_value,
    reused_prefix,
    sum_of_parts,
)
from mindscore.scorers.selftest.probe import MAX_TOKENS, Probe, Span, ask, make_probe

if TYPE_CHECKING:
    from mindscore.scorers.remote.prefix_reuse import PrefixReuse

logger = logging.getLogger(__name__)

_MIN_TOKENS = 4

Call = Callable[[Sequence[WirePrompt]], Awaitable[ScoreResult]]
"""A scorer's ``score``, made again where that may help."""


def _calls(scorer: Scorer, settings: ServerSettings, usage: Usage) -> Call:
    """Return ``scorer.score`` with its retries, which counts what is sent in ``usage``."""
    retry = Retry(settings)

    async def call(prompts: Sequence[WirePrompt]) -> ScoreResult:
        tokens = sum(len(it.tokens) for it in prompts)
        ask = partial(awaited, scorer.score, prompts)
        return ScoreResult.of(await retry(lambda: count_sent(usage, tokens, ask)))

    return call


async def self_test(scorer: Scorer, tokens: Sequence[int]) -> None:
    """Test that ``scorer`` answers like a causal language model.

    ``tokens`` are ids of natural text, best the beginning of a conversation's own prompt; at most
    192 are used. Costs three calls, four prompts of up to 192 tokens. Where a scorer has prefixes
    reused under its own control (``prefix_reuse``), two of up to 350 more: if that does not give
    the values of prompts in full, it ends, and the test passes all the same.
    Fewer than about 32 tokens, or too few different ones, allow for less: that not all values are
    one, and that parts add up to the whole of a second answer.

    Raises:
        ScorerError: names the model, the check that failed, its figures, and what to do; or says
            that the scorer itself failed while it was tested.
    """
    await _run_test(scorer, tokens, _calls(scorer, ServerSettings(), Usage()))


async def _run_test(scorer: Scorer, tokens: Sequence[int], call: Call) -> bool:
    """Run the test, and return whether there was enough text for all checks."""
    probe = make_probe(tokens)
    if probe is None:
        fault = await _small_test(scorer, tokens[:MAX_TOKENS], call)
    else:
        fault = first_fault(await _ask(scorer, probe, call))
    if fault:
        raise ScorerError(
            f"{_name(scorer)}, failed the self-test: {fault}. To score anyway, pass --no-self-test "
            "or set server.self_test = false"
        )
    if probe is None:
        return False
    return await _test_reuse(scorer, probe, call) and probe.is_large


async def _test_reuse(scorer: Scorer, probe: Probe, call: Call) -> bool:
    """Switch off the reuse of prefixes if it gives other values; return whether it was right."""
    reuse = _reuse_of(scorer)
    if reuse is None or not reuse.is_on:
        return reuse is None or not reuse.is_faulty
    prompt = ask(probe.branched, probe.branch_spans)
    with reuse.set_aside():
        [full] = await _score(scorer, [prompt], call)
    [reused] = await _score(scorer, [prompt], call)
    if fault := reused_prefix(full, reused):
        reuse.stop(fault)
    return reuse.is_on


def _reuse_of(scorer: Scorer) -> PrefixReuse | None:
    """Return the switch of a scorer that controls what its server reuses; known once it is used."""
    found: PrefixReuse | None = getattr(scorer, "prefix_reuse", None)
    return found


def _set_aside(scorer: Scorer) -> AbstractContextManager[None]:
    reuse = _reuse_of(scorer)
    return nullcontext() if reuse is None else reuse.set_aside()


async def _ask(scorer: Scorer, probe: Probe, call: Call) -> Answers:
    # Together, to see the answers in order; then one by one, to see that none is remembered.
    spans = probe.all_spans
    together = [ask(probe.told, spans), ask(probe.shuffled, spans)]
    told, shuffled = await _score(scorer, together, call)
    [untold] = await _score(scorer, [ask(probe.untold, spans)], call)
    # In full: what is reused is tested by itself.
    with _set_aside(scorer):
        [again] = await _score(scorer, [ask(probe.told, probe.late_spans)], call)
    return Answers(probe, told=told, shuffled=shuffled, untold=untold, again=again)


async def _small_test(scorer: Scorer, tokens: Sequence[int], call: Call) -> str | None:
    """Return the fault that a text with few different tokens can show, or ``None``."""
    logger.debug(
        "%s: the prompt's first %d tokens (%d different) are too few to test much with",
        _name(scorer),
        len(tokens),
        len(set(tokens)),
    )
    end = len(tokens)
    if end < _MIN_TOKENS:
        return None
    parts = list(_pieces(end))
    [apart] = await _score(scorer, [ask(tokens, parts)], call)
    [whole] = await _score(scorer, [ask(tokens, [(1, end)])], call)
    constant = one_value(apart, even_0=False)
    return constant or sum_of_parts(apart, (1, end), whole[1, end])


def _pieces(end: int) -> Iterator[Span]:
    """Yield all positions but the first, in pieces of different lengths.

    So, one total for all pieces is a fault.
    """
    start = 1
    for length in itertools.cycle((1, 2, 3)):
        if start >= end:
            return
        yield start, min(start + length, end)
        start += length


async def _score(scorer: Scorer, prompts: Sequence[WirePrompt], call: Call) -> list[Totals]:
    try:
        answers = (await call(prompts)).ranges
        check_answers(scorer.model, prompts, answers)
    except ScorerError as error:
        raise ScorerError(
            f"{_name(scorer)}, during the self-test: {format_error(error)}"
        ) from error
    return [
        {span: it.total for span, it in zip(prompt.ranges, answer, strict=True)}
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def _name(scorer: Scorer) -> str:
    return f"{type(scorer).__name__}, model {printable(scorer.model)!r}"


VALID_S = 7 * 24 * 3600.0
"""Seconds for which a passed test counts. A server may be updated meanwhile."""

_VERSION = 2
"""Version of the test: one that checks more is to be passed anew."""

_passed: dict[str, float] = {}
"""Time (Unix, s) at which a server passed in this process: the file may not be writable."""


async def ensure_tested(
    scorer: Scorer, settings: ServerSettings, tokens: Sequence[int], usage: Usage | None = None
) -> None:
    """Run ``self_test`` for a scorer that is ``self_tested``, unless it passed within a week.

    A test that failed is not remembered, nor one that could not check everything. What is sent is
    counted in ``usage.sent_tokens``.

    Raises:
        ScorerError: as ``self_test``.
    """
    if not settings.self_test or not ScorerCapabilities.of(scorer).self_tested:
        return
    server = _server(scorer, settings)
    if _is_valid(_passed.get(server)):
        return
    file = platformdirs.user_data_path("mindscore") / "self-tests.json"
    if _is_valid((await in_thread(_read, file)).get(server)):
        return
    try:
        calls = _calls(scorer, settings, usage or Usage())
        is_whole = await _run_test(scorer, tokens, calls)
    except ScorerError as error:
        where = settings.base_url.removesuffix("/").removesuffix("/v1")
        raise error if where in str(error) else ScorerError(f"{where}: {error}") from error
    if is_whole:
        _passed[server] = time.time()
        await in_thread(_remember, file, server)


def _server(scorer: Scorer, settings: ServerSettings) -> str:
    """Return a hash of scorer, server and model: addresses are not written to the file."""
    kind = f"{type(scorer).__module__}.{type(scorer).__qualname__}"
    facts = [_VERSION, kind, settings.base_url, scorer.model, settings.options]
    return hashlib.sha256(msgspec.json.encode(facts, enc_hook=repr, order="sorted")).hexdigest()


def _is_valid(when: float | None) -> bool:
    # A time in the future comes of a wrong clock.
    return when is not None and 0 <= time.time() - when < VALID_S


def _read(file: Path) -> dict[str, float]:
    """Return when each server passed; nothing if the file cannot be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, float])
    except (OSError, ValueError) as error:
        logger.debug("%s: %s: no server counts as tested", file, error)
        return {}


def _remember(file: Path, server: str) -> None:
    """Add ``server``. Of two processes at once one may lose its entry, and tests again."""
    valid = {name: when for name, when in _read(file).items() if _is_valid(when)}
    valid[server] = time.time()
    try:
        write_whole(file, msgspec.json.encode(valid))
    except OSError as error:
        logger.debug("%s: %s: the next process tests again", file, error)
