"""Which servers passed the self-test, so that not every run asks again."""

from __future__ import annotations

import hashlib
import itertools
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import platformdirs

from mindhooks import Scorer, ScorerError, WirePrompt, in_thread
from mindscore._util.errors import format_error
from mindscore._util.files import write_whole
from mindscore._util.text import printable
from mindscore.config.settings import ServerSettings
from mindscore.measure.divergence import check_answers
from mindscore.scorers.selftest.checks import Answers, Totals, first_fault, one_value, sum_of_parts
from mindscore.scorers.selftest.probe import MOST_TOKENS, Probe, Span, ask, make_probe

logger = logging.getLogger(__name__)

_FEWEST = 4
_MOST_SLOTS = 16


async def self_test(scorer: Scorer, tokens: Sequence[int]) -> None:
    """Test that ``scorer`` answers like a causal language model.

    ``tokens`` are ids of natural text, best the beginning of a conversation's own prompt; at most
    192 are used. Costs three calls, four prompts of up to 192 tokens and a few of four tokens.
    Fewer than about 32 tokens, or too few different ones, allow for less: that not all values are
    one, and that parts add up to the whole of a second answer.

    Raises:
        ScorerError: names the model, the check that failed, its figures, and what to do; or says
            that the scorer itself failed while it was tested.
    """
    await run_test(scorer, tokens, ServerSettings().concurrency)


async def run_test(scorer: Scorer, tokens: Sequence[int], concurrency: int) -> bool:
    """As ``self_test``; whether there was enough text for all checks.

    ``concurrency``: how many requests the scorer sends at once. One that sends several prompts in
    one request does so only with more prompts than that.
    """
    probe = make_probe(tokens)
    if probe is None:
        fault = await _small_test(scorer, tokens[:MOST_TOKENS])
    else:
        fault = first_fault(await _ask(scorer, probe, concurrency))
    if fault:
        raise ScorerError(
            f"{_name(scorer)}, failed the self-test: {fault}. To score anyway, pass --no-self-test "
            "or set server.self_test = false"
        )
    return probe is not None and probe.is_large


async def _ask(scorer: Scorer, probe: Probe, concurrency: int) -> Answers:
    # Together, to see the answers in order; then one by one, to see that none is remembered.
    spans = probe.all_spans
    together = [ask(probe.told, spans), ask(probe.shuffled, spans)]
    if getattr(scorer, "batch_size", 1) > 1:
        fillers = min(concurrency, _MOST_SLOTS) - 1
        together += [ask(probe.told[:_FEWEST], [(1, _FEWEST)])] * fillers
    told, shuffled, *_ = await _score(scorer, together)
    [untold] = await _score(scorer, [ask(probe.untold, spans)])
    [again] = await _score(scorer, [ask(probe.told, probe.late_spans)])
    return Answers(probe, told=told, shuffled=shuffled, untold=untold, again=again)


async def _small_test(scorer: Scorer, tokens: Sequence[int]) -> str | None:
    """What can be seen in text that has next to nothing in it."""
    logger.debug(
        "%s: the prompt's first %d tokens (%d different) are too few to test much with",
        _name(scorer),
        len(tokens),
        len(set(tokens)),
    )
    end = len(tokens)
    if end < _FEWEST:
        return None
    parts = list(_pieces(end))
    [apart] = await _score(scorer, [ask(tokens, parts)])
    [whole] = await _score(scorer, [ask(tokens, [(1, end)])])
    constant = one_value(apart, even_0=False)
    return constant or sum_of_parts(apart, (1, end), whole[1, end])


def _pieces(end: int) -> Iterator[Span]:
    """All positions but the first, in pieces of different lengths: one total for all is a fault."""
    start = 1
    for length in itertools.cycle((1, 2, 3)):
        if start >= end:
            return
        yield start, min(start + length, end)
        start += length


async def _score(scorer: Scorer, prompts: Sequence[WirePrompt]) -> list[Totals]:
    try:
        answers = await scorer.score(prompts)
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

_VERSION = 1
"""Of the test: one that checks more is to be passed anew."""

_passed: dict[str, float] = {}
"""When, in seconds since 1970, a server passed in this process: the file may not be writable."""


async def ensure_tested(scorer: Scorer, settings: ServerSettings, tokens: Sequence[int]) -> None:
    """``self_test``, where the scorer asks for it and its server has not passed it lately.

    A scorer asks with a true attribute ``self_tested``. A test that failed is not remembered, nor
    one that could not check everything.

    Raises:
        ScorerError: as ``self_test``.
    """
    if not settings.self_test or not getattr(scorer, "self_tested", False):
        return
    server = _server(scorer, settings)
    if _is_valid(_passed.get(server)):
        return
    file = platformdirs.user_data_path("mindscore") / "self-tests.json"
    if _is_valid((await in_thread(_read, file)).get(server)):
        return
    try:
        is_whole = await run_test(scorer, tokens, settings.concurrency)
    except ScorerError as error:
        where = settings.base_url.removesuffix("/").removesuffix("/v1")
        raise error if where in str(error) else ScorerError(f"{where}: {error}") from error
    if is_whole:
        _passed[server] = time.time()
        await in_thread(_remember, file, server)


def _server(scorer: Scorer, settings: ServerSettings) -> str:
    """The scorer, its server and its model, as a hash: an address may be nobody's business."""
    kind = f"{type(scorer).__module__}.{type(scorer).__qualname__}"
    facts = [_VERSION, kind, settings.base_url, scorer.model, settings.options]
    return hashlib.sha256(msgspec.json.encode(facts, enc_hook=repr, order="sorted")).hexdigest()


def _is_valid(when: float | None) -> bool:
    # One from the future has a wrong clock behind it.
    return when is not None and 0 <= time.time() - when < VALID_S


def _read(file: Path) -> dict[str, float]:
    """When each server passed; none where the file is missing, unreadable or not ours."""
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
