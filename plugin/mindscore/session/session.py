"""A host over one conversation: the command line, the review page and ``attach`` share it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    MindCommand,
    MindhooksError,
    MindState,
    Registry,
    Run,
    Scorer,
    UnhandledCommand,
    UnknownScorer,
    hookimpl,
)
from mindscore._util.errors import ConfigError, format_error
from mindscore.config.settings import parse_settings
from mindscore.conversation.choice import begins_unlike, images_for, template_for
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.rendering import CachedTokenizer, KeySets
from mindscore.flows.recorder import run_tokens, store_failures
from mindscore.measure.comparison import Comparison
from mindscore.measure.interactions import Interaction, RedundantGroup
from mindscore.measure.leave_one_out import LeaveOneOut
from mindscore.measure.memories import text_hashes
from mindscore.measure.placebo import PlaceboControl
from mindscore.measure.retry import Retry, awaited, with_retries
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.session.result import Result
from mindscore.store import KnownScore, Records, Store, damage_remark

Stats = MemoryStats | FinetuneStats


class SilentActivity(AbstractContextManager["SilentActivity", None]):
    """An activity that nobody is shown."""

    def __enter__(self) -> SilentActivity:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Ignore the message."""


class Session:
    """A transcript as a Mind, with a registry over it.

    The session is registered as a plugin too: ``scores`` and ``candidates`` are those of the
    command that was run last, and ``hear`` is called with each as it comes. Assign ``transcript``
    when the conversation has gone on; it is tokenised by the registry's scorer on first use, unless
    its ``context`` is given.
    """

    registry: Registry

    def __init__(
        self,
        transcript: Transcript,
        show: Callable[[str], Activity] = lambda _: SilentActivity(),
        hear: Callable[[MemoryScore | FinetuneCandidate], None] = lambda _: None,
        context: Context | None = None,
    ) -> None:
        self.state = MindState()
        self.transcript = transcript
        self.scores: dict[str, MemoryScore] = {}
        self.candidates: list[FinetuneCandidate] = []
        self.ended: list[tuple[Stats, Run]] = []
        """The runs that ended since the last command was dispatched."""
        self.sent_tokens = 0
        """The tokens that these have sent."""
        self._show = show
        self._hear = hear
        self._context = None if context is None else (transcript, context)
        self._tokenizer: CachedTokenizer | None = None
        self._run: Run | None = None
        self._damage: tuple[str, ...] = ()
        self._rendered: tuple[str, ...] = ()

    @asynccontextmanager
    async def open(
        self, settings: Mapping[str, Any], scorer: Scorer | None = None
    ) -> AsyncIterator[Session]:
        """Open a registry over the conversation, with the installed plugins."""
        async with Registry(self, settings, scorer=scorer) as registry:
            registry.load_entry_points()
            self.listen(registry)
            yield self

    def listen(self, registry: Registry) -> None:
        """Use the scorer of ``registry``, and hear what its plugins find."""
        self.registry = registry
        registry.register(self, name="session")

    async def run(self, command: str, keys: tuple[str, ...] = ()) -> Result:
        """Run ``command`` and return what it found.

        ``keys`` are the memories that were asked for, for the result.

        Raises:
            UnhandledCommand: no plugin took it.
            ConfigError: the scorer cannot be built because of the configuration.
        """
        model = await model_name(self.registry)
        self.forget()
        old_errors, old_stats = self.registry.task_errors(), self._stats_shown(command)
        self.registry.dispatch(command)
        await self.registry.wait_idle()
        await self._note_damage()
        ended = next((it for it in self.ended if it[1].command == command), None)
        stats = ended[0] if ended else None
        if ended:
            # The one that the run's scores are stored under.
            model = ended[1].model
        if stats is None and self._stats_shown(command) is not old_stats:
            stats = self._stats_shown(command)
        errors = [
            f"{name}: {format_error(error)}"
            for name, error in self.registry.task_errors().items()
            if old_errors.get(name) is not error
        ]
        result = self._result(command, model, keys, stats, errors[0] if errors else None)
        if command == MindCommand.SCORE and not result.scores.keys() >= set(keys):
            return replace(result, known=await self._known(result))
        return result

    async def _known(self, result: Result) -> Mapping[str, KnownScore]:
        """Return the scores that the store has of the memories that ``result`` has none of."""
        talk = result.transcript
        try:
            store, texts = Store(parse_settings(self.registry.settings).store), text_hashes(talk)
            found = await store.latest_scores(result.model, talk.id, texts)
        # The run has said why; what it found is not lost with it.
        except MindhooksError:
            return {}
        return {key: found[key] for key in result.keys if key in found and key not in result.scores}

    async def attempt(self, command: str, keys: tuple[str, ...]) -> Result:
        """Run ``command`` as ``run`` does; a command that nobody takes is a result with an error.

        Raises:
            ConfigError: the scorer cannot be built because of the configuration.
        """
        try:
            return await self.run(command, keys)
        except UnhandledCommand as error:
            hint = f"{error}: is its plugin disabled? See mindscore plugins."
            return await self.failed(command, keys, hint)

    async def failed(self, command: str, keys: tuple[str, ...], why: str) -> Result:
        """Return the result of a command that could not be run, which says ``why``.

        Raises:
            ConfigError: the scorer cannot be built because of the configuration.
        """
        return self._result(command, await model_name(self.registry), keys, None, why)

    def forget(self) -> None:
        """Forget what earlier commands found."""
        self.scores, self.candidates, self.ended, self.sent_tokens = {}, [], [], 0
        kinds = (RedundantGroup, Interaction, PlaceboControl, ScreenReceipt, LeaveOneOut, Retry)
        for kind in (*kinds, Comparison):
            self.registry.stash.pop(kind, None)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Lines on what is not recorded, not understood, not printed, or not measured."""
        compared: LeaveOneOut | None = self.registry.stash.get(LeaveOneOut)
        unread = None if compared is None else compared.unread
        not_measured = () if unread is None else (unread.remark,)
        return (*self.transcript.remarks, *self._rendered, *not_measured, *self._damage)

    async def _note_damage(self) -> None:
        records = Records(parse_settings(self.registry.settings).store)
        # A store that cannot be read has failed the run already, and that is said.
        with suppress(MindhooksError):
            damaged = await records.left_out()
            self._damage = (damage_remark(damaged),) if damaged else ()

    def store_error(self) -> str | None:
        """Return why not all that the run in flight found is stored, or ``None``."""
        return store_failures(self.registry, self._run).error

    # -- the Mind, and its listener --------------------------------------------------------------

    async def context(self) -> Context:
        if self._context is None or self._context[0] is not self.transcript:
            transcript = self.transcript
            self._context = transcript, await self.context_without(None)
        return self._context[1]

    async def context_without(self, without: KeySets | None) -> Context:
        """Return the conversation, ready to leave out each set of memories in ``without``.

        ``None``: those that flows leave out.

        Raises:
            MindhooksError: it cannot be rendered.
        """
        scorer, tables = await self.registry.scorer(), self.registry.settings
        if self._tokenizer is None:
            self._tokenizer = _cached_tokenizer(scorer, tables)
        context, self._rendered = await _render(
            self.transcript, scorer, tables, self._tokenizer, without
        )
        self._tokenizer.evict_unused()
        return context

    async def context_for(
        self, scorer: Scorer, tables: Mapping[str, Any]
    ) -> tuple[Context, tuple[str, ...]]:
        """Return the conversation as another ``scorer`` reads it, with remarks on that.

        It is rendered by that one's own template and tokenizer; ``tables`` are the settings with
        its ``[server]``.

        Raises:
            MindhooksError: it cannot be rendered.
        """
        transcript, tokenizer = self.transcript.without_ids(), _cached_tokenizer(scorer, tables)
        return await _render(transcript, scorer, tables, tokenizer, None)

    @property
    def rendered(self) -> Context | None:
        """The context as the last run read it, or ``None`` if it could not be rendered."""
        known = self._context
        return known[1] if known is not None and known[0] is self.transcript else None

    def activity(self, message: str) -> Activity:
        return self._show(message)

    def changed(self) -> None:
        """Do nothing: results are shown as they are heard of, and at the end."""

    @hookimpl
    def on_score(self, score: MemoryScore, run: Run | None) -> None:
        self._run = run
        self.scores[score.key] = score
        self._hear(score)

    @hookimpl
    def on_candidate(self, candidate: FinetuneCandidate, run: Run | None) -> None:
        self._run = run
        self.candidates.append(candidate)
        self._hear(candidate)

    @hookimpl
    def on_run_end(self, stats: Stats | None, run: Run) -> None:
        if stats is not None:
            self.ended.append((stats, run))
            self.sent_tokens += run_tokens(self.registry).get(run.id, stats.prompt_tokens)

    def _stats_shown(self, command: str) -> Stats | None:
        """Return the statistics of the flow that answers ``command`` in the mind's state."""
        if command == MindCommand.SCORE_FINETUNE:
            return self.state.finetune_last_run
        return self.state.memory_last_run

    def _result(
        self,
        command: str,
        model: str,
        keys: tuple[str, ...],
        stats: Stats | None,
        error: str | None,
    ) -> Result:
        receipt: ScreenReceipt | None = self.registry.stash.get(ScreenReceipt)
        return Result(
            command=command,
            model=model,
            transcript=self.transcript,
            keys=keys,
            scores=dict(self.scores),
            candidates=tuple(self.candidates),
            stats=stats,
            error=(stats.error if stats is not None else None) or error,
            remarks=self.remarks,
            redundant=self.registry.stash.get(RedundantGroup, ()),
            interactions=self.registry.stash.get(Interaction, ()),
            placebo=self.registry.stash.get(PlaceboControl),
            comparison=self.registry.stash.get(Comparison),
            screen=receipt,
            estimates=() if receipt is None else receipt.estimates,
            estimates_error=None if receipt is None else receipt.error,
            min_divergence=parse_settings(self.registry.settings).memory.min_divergence,
        )


def _cached_tokenizer(scorer: Scorer, tables: Mapping[str, Any]) -> CachedTokenizer:
    server = parse_settings(tables).server
    return CachedTokenizer(
        lambda text: with_retries(lambda: awaited(scorer.tokenize, text), server)
    )


async def _render(
    transcript: Transcript,
    scorer: Scorer,
    tables: Mapping[str, Any],
    tokenizer: CachedTokenizer,
    without: KeySets | None,
) -> tuple[Context, tuple[str, ...]]:
    """Return the conversation as ``scorer`` reads it, with remarks on that."""
    template, remarks = await template_for(transcript, scorer, tables, tokenizer)
    if isinstance(template, OwnTemplate):
        template.render = Retry(parse_settings(tables).server).wrap(template.render)
    shown = images_for(transcript, scorer, tables)
    context = await shown.context(tokenizer, template, without)
    remarks += await template.remarks(shown.messages)
    return context, (*remarks, *begins_unlike(context, scorer))


async def model_name(registry: Registry) -> str:
    """Return the name of the scorer's model, or the settings' if the scorer cannot be built.

    Raises:
        ConfigError: it cannot be built because of the configuration. Any other reason is met
            again, and reported, by the flow.
    """
    try:
        return (await registry.scorer()).model
    except ConfigError:
        raise
    except UnknownScorer as error:
        raise ConfigError(format_error(error)) from None
    except MindhooksError:
        return parse_settings(registry.settings).server.model
