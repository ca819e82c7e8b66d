"""compare-scoring: score every response by a second model, too, and tell how the two differ.

The conversation is one model's, as the host gives it. If the other one has the same tokenizer, it
reads the very same prompts; else the host's session renders the conversation for it anew, and
responses are compared by the bytes of their text. Both are scored with all memories, with none, and
without each; nothing is emitted: a listener would take it for the host's own scores.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from mindhooks import (
    Activity,
    MemoryStats,
    Mind,
    MindhooksError,
    Outcome,
    Registry,
    Scorer,
    ScorerCapabilities,
    ScorerError,
    Trigger,
    WirePrompt,
    hookimpl,
    in_thread,
    load_scorer,
)
from mindscore._util.aio import closed_at_end, map_ordered
from mindscore._util.errors import ConfigError, format_error
from mindscore._util.text import count_of
from mindscore.config.servers import other_server, require_adapter
from mindscore.config.settings import (
    CompareScoringOptions,
    ServerSettings,
    named_servers,
    parse_settings,
    parse_table,
)
from mindscore.flows.finetune import end_of_turn, prompt_before
from mindscore.flows.run import FlowRun
from mindscore.measure.cached_scorer import CachedScorer, ScoreCache
from mindscore.measure.comparison import ComparedResponse, Comparison, Pair, Parting, Unit
from mindscore.measure.leave_one_out import Divergences, LeaveOneOut, NoiseFloor
from mindscore.measure.memories import Memory, find_memories, skip_none
from mindscore.measure.prompts import whole_prompt
from mindscore.measure.retry import BreakerError, Retry
from mindscore.measure.side import Side, compared_effects, compared_responses, partings
from mindscore.measure.usage import Usage
from mindscore.scorers.selftest import ensure_tested

log = logging.getLogger("mindscore")

NAME = "compare-scoring"
COMMAND = "compare"

NOT_NAMED = (
    f"plugins.settings.{NAME}.with: name the other model: a table [server.NAME], the folder of an "
    "adapter (./…), or a model"
)

PROBE = "<|im_start|>user\nThe 3 cafés' price: 1,024.50 €…\n\tif (x != y) {} // 日本語 🙂 don't"
"""A text that few different tokenizers divide alike, beside those of the conversation."""


@dataclass(frozen=True, slots=True)
class OtherModel:
    """The other model, loaded.

    In a registry's stash it serves all runs, and its owner closes it; else each run loads it anew.
    ``tables`` are the settings with its ``[server]``.
    """

    name: str
    scorer: Scorer
    tables: Mapping[str, Any]


@asynccontextmanager
async def opened_model(tables: Mapping[str, Any], name: str) -> AsyncIterator[OtherModel]:
    """Load the model that ``name`` stands for in the settings, and close it at the end.

    Raises:
        ConfigError: there is no name.
        ScorerError: its scorer cannot be built.
    """
    if not name:
        raise ConfigError(NOT_NAMED)
    server = tables.get("server", {})
    table = other_server(server, name)
    with _naming(name, named_servers(server)):
        scorer = await load_scorer(table)
    async with closed_at_end(scorer, f"the other model, {name!r},"):
        with _naming(name, ()):
            require_adapter(ScorerCapabilities.of(scorer).adapter, table, server)
        yield OtherModel(name, scorer, {**tables, "server": table})


@contextmanager
def _naming(name: str, known: Sequence[str] | Mapping[str, Any]) -> Iterator[None]:
    """Say of an error that it is the other model's, and which models the configuration names."""
    try:
        yield
    except MindhooksError as error:
        named = f" (tables of [server]: {', '.join(known)})" if known else ""
        raise ScorerError(f"the other model, {name!r}{named}: {error}") from error


class CompareRun(FlowRun):
    """A run of compare-scoring; its comparison goes to the registry's stash."""

    activity: Activity

    def __init__(self, mind: Mind, registry: Registry, options: CompareScoringOptions) -> None:
        super().__init__(COMMAND, mind, registry)
        self.options = options
        self.memories: list[Memory] = []
        self.outcomes: dict[str, Outcome] = {}
        self.remarks: list[str] = []
        self._others_usage = Usage()
        self.usages.append(self._others_usage)
        self._others_retry = Retry(ServerSettings())
        self._unsaid: list[str] = []
        self._done = 0

    def begin(self) -> None:
        """Forget the comparison of an earlier run."""
        self.registry.stash.pop(Comparison, None)

    async def perform(self) -> None:
        """Score the conversation by both models, and compare."""
        await self.read(tokens=True)
        if self.options.memories:
            self.memories = find_memories(self.context)
        stashed, name = self.registry.stash.get(OtherModel), self.options.with_
        self.activity = self.mind.activity(f"comparing: {self.scorer.model}")
        opened = nullcontext(stashed) if stashed else opened_model(self.run.settings, name)
        with self.activity:
            async with opened as other:
                self._others_retry = Retry(parse_settings(other.tables).server)
                is_same = await self._has_same_tokenizer(other)
                with _naming(other.name, ()):
                    second = await self._second(other, is_same)
                server = self.settings.server
                first = Side(
                    self.scorer, server, self.context, self.cached, self.noise, self.compared
                )
                if first.responses:
                    unit: Unit = "nats" if is_same else "nats per byte"
                    await self._compare((first, second), other.name, unit)

    # -- the other model's conversation ----------------------------------------------------------

    async def _has_same_tokenizer(self, other: OtherModel) -> bool:
        """Return whether both models have the same ids for each text of the conversation.

        Raises:
            ScorerError: one of them cannot tokenise.
        """
        context, tokenize = self.context, self.retry.wrap(self.scorer.tokenize)
        tokenize_too = self._others_retry.wrap(other.scorer.tokenize)
        nodes = (*context.system, *context.identity, *context.conversation)
        texts = {PROBE, *(node.text for node in nodes)}
        for text in sorted(texts):
            ids = await tokenize(text)
            with _naming(other.name, ()):
                if list(ids) != list(await tokenize_too(text)):
                    return False
        return True

    async def _second(self, other: OtherModel, is_same: bool) -> Side:
        settings, model = parse_settings(other.tables), self.scorer.model
        context = self.context
        nodes = (*context.system, *context.identity, *context.conversation)
        takes_images = ScorerCapabilities.of(other.scorer).takes_images
        if any(node.images for node in nodes) and not takes_images:
            raise ScorerError("the conversation holds images, and it takes none")
        if not is_same:
            context_for = getattr(self.mind, "context_for", None)
            if context_for is None:
                raise MindhooksError(
                    "it has another tokenizer, and this host cannot render the conversation for it"
                )
            context, remarks = await context_for(other.scorer, other.tables)
            self.remarks += [f"{other.name}: {remark}" for remark in remarks]
            self.remarks.append(
                f"{model} and {other.name} have different tokenizers: each reads the conversation "
                "by its own, and responses are compared in nats per byte of their text, the end of "
                "the turn included"
            )
        elif await self._prints_otherwise(other.scorer):
            self.remarks.append(
                f"{other.name} has another chat template: it reads the conversation as {model} "
                "prints it"
            )
        usage, retry = self._others_usage, self._others_retry
        cached = CachedScorer(other.scorer, usage, ScoreCache(), retry, tokens=is_same)
        noise = NoiseFloor(cached, settings.memory.noise_repeats)
        compared = LeaveOneOut(cached, context, noise)
        return Side(other.scorer, settings.server, context, cached, noise, compared)

    async def _prints_otherwise(self, other: Scorer) -> bool:
        """Return whether the models' own chat templates differ, as far as both have one."""
        said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        if self.settings.server.chat_template != "auto":
            return False
        printed = set()
        for scorer in (self.scorer, other):
            render = ScorerCapabilities.of(scorer).render_chat
            try:
                printed.add(render and await render(said, False))
            # A scorer may be anybody's, and only a remark is lost.
            except Exception as error:
                log.debug("a chat template is not known: %s", format_error(error))
                return False
        return len(printed) > 1 and None not in printed

    # -- the comparison --------------------------------------------------------------------------

    async def _compare(self, sides: tuple[Side, Side], name: str, unit: Unit) -> None:
        """Score both sides, and put what is known into the stash, also where the rest fails."""
        scale = self._scale(sides, unit)
        totals, rows = [], []
        for side, owner in zip(sides, (self.scorer.model, name), strict=True):
            self._show(owner)
            with _naming(name, ()) if side is sides[1] else nullcontext():
                totals.append(await self._totals(side))
            if (remark := await side.unlisted()) is not None:
                self.remarks.append(f"{owner}: {remark}")
        parted = await self._partings(sides) if unit == "nats" else {}
        least = self.settings.memory.min_divergence
        found = list(compared_responses(sides, totals, scale, least, parted))
        try:
            for side, owner in zip(sides, (self.scorer.model, name), strict=True):
                rows.append(await self._rows(side, owner))
            if self.options.say:
                found = await self._say(sides[1], name, found)
        finally:
            are_known = len(rows) == len(sides)
            effects = compared_effects(sides, found, rows, scale, least) if are_known else ()
            unread = [it.compared.unread for it in sides]
            self.remarks += [it.remark for it in unread if it is not None]
            # Resampling would keep the host's loop from its own work.
            self.registry.stash[Comparison] = await in_thread(
                Comparison.of, self.scorer.model, name, unit, found, effects, self.remarks
            )

    def _scale(self, sides: tuple[Side, Side], unit: Unit) -> dict[str, float]:
        """Return what the nats of each response are divided by: 1, or the bytes of its text.

        By bytes, those that are more than a text are left out.
        """
        ids = [id_ for id_ in sides[0].responses if id_ in sides[1].responses]
        if unit == "nats":
            return dict.fromkeys(ids, 1.0)
        mind: Any = self.mind
        messages = {it.id: it for it in mind.transcript.conversation}
        plain = {
            id_: float(len(messages[id_].text.encode("utf-8", "surrogatepass")))
            for id_ in ids
            if messages[id_].text.strip()
            and not (messages[id_].tool_calls or messages[id_].reasoning)
        }
        if count := len(ids) - len(plain):
            left = "response is" if count == 1 else "responses are"
            self.remarks.append(
                f"{count} {left} left out: what calls tools, or has no text, has no nats per byte"
            )
        return plain

    async def _totals(self, side: Side) -> dict[str, Pair]:
        prompt = await whole_prompt(side.context)
        await ensure_tested(side.scorer, side.server, prompt, side.cached.usage)
        return await side.totals()

    async def _partings(self, sides: tuple[Side, Side]) -> dict[str, Parting]:
        """Return where the models part in each response, as far as they give tokens' values."""
        found = partings(sides, [await side.token_logprobs() for side in sides])
        return {id_: await self._with_text(it, sides[0].responses[id_]) for id_, it in found}

    async def _rows(self, side: Side, owner: str) -> dict[str, Divergences]:
        """Return each memory's effects by one model; one that fails stops no other."""
        rows: dict[str, Divergences] = {}
        # The last memory first: its prompt shares the longest prefix with the baseline.
        turns = map_ordered(side.effect, self.memories[::-1], side.server.concurrency)
        async with aclosing(turns):
            async for memory, measuring in turns:
                self._show(f"{memory.key} ({owner})")
                found = await measuring
                if isinstance(found, BreakerError):
                    raise found
                if isinstance(found, BaseException):
                    error = f"{owner}: {format_error(found)}"
                    self.outcomes[memory.key] = Outcome("failed", error)
                    continue
                rows[memory.key] = found
                self.outcomes.setdefault(memory.key, Outcome("scored" if found else "no-response"))
        return {it.key: rows[it.key] for it in self.memories if it.key in rows}

    async def _with_text(self, it: Parting, index: int) -> Parting:
        """Return where models part with the text there, if the first one can say it."""
        node, capabilities = self.context.conversation[index], ScorerCapabilities.of(self.scorer)
        ids = node.token_ids[slice(*node.body)][: it.token + 1]
        try:
            if capabilities.token_texts is not None:
                pieces = await capabilities.token_texts(ids)
            elif capabilities.detokenize is not None:
                before = await capabilities.detokenize(ids[:-1])
                pieces = [before, await capabilities.detokenize(ids[-1:])]
            else:
                return it
        # A scorer may be anybody's, and only the text is lost.
        except Exception as error:
            log.debug("the text of a token is not known: %s", format_error(error))
            return it
        at = 0
        for piece in pieces[:-1]:
            start = node.text.find(piece.strip(), at)
            at = at if start < 0 else start + len(piece.strip())
        start = node.text.find(pieces[-1].strip(), at)
        return replace(it, before=node.text[: max(start, at)], text=pieces[-1])

    async def _say(
        self, side: Side, name: str, found: Sequence[ComparedResponse]
    ) -> list[ComparedResponse]:
        """Return the responses with what the other model says in their place."""
        said = []
        for number, it in enumerate(found, start=1):
            line = f"comparing: {name} says {number}/{len(found)}"
            self.activity.update(line, number, len(found))
            await self.pace.yield_to_loop()
            try:
                limit = self.settings.finetune.max_alternate_tokens
                said.append(replace(it, other_text=await _said(side, it.entry_idx, limit)))
            except BreakerError:
                raise
            except Exception as error:
                self._unsaid.append(format_error(error))
                said.append(it)
        return said

    def _show(self, what: str) -> None:
        total = 2 * (len(self.memories) + 1)
        self.activity.update(f"comparing: {self._done + 1}/{total} {what}", self._done, total)
        self._done += 1

    def make_stats(self, error: str | None) -> MemoryStats:
        """Return the calls and tokens of both models together."""
        if self._others_retry.is_failing:
            # A host with further conversations need not try them.
            self.registry.stash[Retry] = self._others_retry
        failed = {key: it.error for key, it in self.outcomes.items() if it.status == "failed"}
        if failed and error is None:
            key, first = next(iter(failed.items()))
            error = f"{len(failed)} of {len(self.memories)} memories failed; {key}: {first}"
        if self._unsaid and error is None:
            count = count_of(len(self._unsaid), "response")
            error = f"{count} could not be said by the other model: {self._unsaid[0]}"
        one, other = self.usage, self._others_usage
        computed = (one.computed_tokens, other.computed_tokens)
        return MemoryStats(
            outcomes={
                it.key: self.outcomes[it.key] for it in self.memories if it.key in self.outcomes
            },
            calls=one.calls + other.calls,
            prompt_tokens=one.prompt_tokens + other.prompt_tokens,
            computed_tokens=None if None in computed else sum(filter(None, computed)),
            seconds=one.seconds,
            error=error,
        )


async def _said(side: Side, index: int, max_tokens: int) -> str:
    """Return what the model says in the place of a response, with all memories."""
    context = side.context
    tokens = await prompt_before(context, range(index + 1), skip_none)
    nodes = (*context.system, *context.identity, *context.conversation[:index])
    images = tuple(image for node in nodes for image in node.images)
    prompt, stop = WirePrompt(tokens, images, (), ()), end_of_turn(context)
    return (await side.cached.generate(prompt, max_tokens=max_tokens, stop=stop)).text


class CompareScoring:
    """The plugin that answers ``compare``, one run at a time."""

    commands = (COMMAND,)

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._options = parse_table(table, CompareScoringOptions, f"plugins.settings.{NAME}")

    @hookimpl
    def on_trigger(self, command: str, mind: Mind, registry: Registry) -> Trigger | None:
        if command != COMMAND:
            return None
        run = CompareRun(mind, registry, self._options)
        return registry.task_handle(NAME).trigger_if_idle(run.carry_out)
