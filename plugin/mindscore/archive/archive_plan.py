"""Plan a pass over an archive: what each conversation would cost, and all together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from mindhooks import FinetuneStats, MindCommand, MindhooksError, ScorerCapabilities, load_scorer
from mindscore._util.errors import TranscriptError, format_error
from mindscore.archive.pass_record import conditions_of, last_fingerprint, settings_digest
from mindscore.archive.survey import ArchiveReader, Found, Survey, chosen_transcripts
from mindscore.config.file import merge
from mindscore.config.settings import parse_settings
from mindscore.measure.cached_scorer import weights_of
from mindscore.measure.retry import Retry
from mindscore.session.plan import SCREENED, count_calls
from mindscore.session.session import Session
from mindscore.store import History, Pass, Store

TOKENS_OF_MONEY = 1e6


@dataclass(slots=True)
class ArchivePlan:
    """The cost of a pass before it is run, as ``session.plan.Plan`` has it of one conversation.

    ``seconds``, and the money, are with all that may be sent to confirm groups of memories.
    """

    command: str
    model: str
    place: str
    conversations: int = 0
    unchanged: int = 0
    responses: int = 0
    calls: int = 0
    prompt_tokens: int = 0
    confirming_calls: int = 0
    confirming_tokens: int = 0
    computed_tokens: int | None = 0
    seconds: float | None = 0.0
    servers: int = 1
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def money(self, price: float) -> float:
        """Return the price of all tokens that may be sent, at ``price`` per million."""
        return (self.prompt_tokens + self.confirming_tokens) / TOKENS_OF_MONEY * price

    def document(self, price: float | None) -> dict[str, Any]:
        """Return the document that ``plan --json`` prints."""
        money = {} if price is None else {"price": price, "money": self.money(price)}
        return {
            "command": "plan",
            "flow": self.command,
            "model": self.model,
            "conversations": self.conversations,
            "unchanged": self.unchanged,
            "responses": self.responses,
            "calls": self.calls,
            "prompt_tokens": self.prompt_tokens,
            "computed_tokens": self.computed_tokens,
            "confirming_calls": self.confirming_calls,
            "confirming_tokens": self.confirming_tokens,
            "seconds": self.seconds,
            **money,
            "failed": [
                {"conversation": id_, "source": source, "error": error}
                for id_, source, error in self.failures
            ],
        }


async def plan_archive(
    reader: ArchiveReader,
    survey: Survey,
    chosen: Sequence[Found],
    tables: Mapping[str, Any],
    command: str,
    *,
    measure_again: bool,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> ArchivePlan:
    """Return what a pass would cost: each conversation is rendered, and none is scored.

    Raises:
        MindhooksError: the scorer cannot be built, or the store cannot be read.
    """
    tables = merge(
        tables, {"memory": {"interval_s": 0, "screen": "off"}, "server": {"self_test": False}}
    )
    settings = parse_settings(tables)
    own = settings.plugins.settings.get("memory-scoring", {})
    scorer = await load_scorer(tables.get("server", {}))
    async with aclosing(scorer):
        plan = ArchivePlan(command, scorer.model, settings.server.place)
        plan.servers = max(1, len(settings.server.base_urls))
        weights = await weights_of(scorer, settings.server, Retry(settings.server))
        conditions = {conditions_of(settings_digest(tables, command), weights)} - {""}
        passes = {it.conversation: it for it in await Store(settings.store).passes(None, command)}
        todo = [
            it for it in chosen if measure_again or not _is_done(it, passes.get(it.id), conditions)
        ]
        plan.unchanged = len(chosen) - len(todo)
        options = {**own, "resume": command == "score-full" and not measure_again}
        transcripts = chosen_transcripts(reader, survey.files, todo)
        for done, (found, transcript) in enumerate(transcripts, start=1):
            progress(done, len(todo))
            source = str(survey.files[found.file].path)
            if isinstance(transcript, TranscriptError):
                plan.failures.append((found.id, source, str(transcript)))
                continue
            try:
                counted = await count_calls(Session(transcript), tables, command, scorer, options)
            except MindhooksError as error:
                plan.failures.append((found.id, source, format_error(error)))
                continue
            stats = counted.stats
            if stats.error is not None:
                plan.failures.append((found.id, source, stats.error))
                continue
            plan.conversations += 1
            plan.responses += found.responses
            plan.calls += stats.calls
            plan.prompt_tokens += stats.prompt_tokens
            plan.confirming_calls += counted.confirming_calls
            plan.confirming_tokens += counted.confirming_tokens
            if plan.computed_tokens is not None:
                computed = stats.computed_tokens
                plan.computed_tokens = None if computed is None else plan.computed_tokens + computed
            generates = isinstance(stats, FinetuneStats) and settings.finetune.generate_alternates
            if generates and not plan.remarks:
                plan.remarks.append("alternates that are generated are not in these numbers")
        device = ScorerCapabilities.of(scorer).device
        speed = await History(settings.store).speed(plan.place, plan.model, device)
        if plan.calls:
            plan.seconds = None
        if speed is not None:
            more = plan.confirming_tokens
            computed = None if plan.computed_tokens is None else plan.computed_tokens + more
            scoring = speed.scoring(plan.prompt_tokens + more, computed)
            loading = speed.loading_s or 0.0
            plan.seconds = None if scoring is None else loading + scoring / plan.servers
    many = max((it.memories for it in chosen), default=0)
    if command == MindCommand.SCORE_FULL and (own.get("screen") or settings.memory.screens(many)):
        plan.remarks.append(SCREENED)
    if plan.servers > 1:
        plan.remarks.append(f"divided among {plan.servers} servers of one speed")
    return plan


def _is_done(found: Found, known: Pass | None, conditions: set[str]) -> bool:
    last = last_fingerprint(known, conditions)
    is_whole = known is not None and known.error is None
    return is_whole and last is not None and last.content == found.digest.hex()
