"""An attempt of one server at one conversation, in every engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mindhooks import Context, MindCommand, MindhooksError, ScorerUnavailable
from mindscore._util.errors import format_error
from mindscore.archive.budget import TokenBudget, most_tokens
from mindscore.archive.pass_record import BUDGET_SPENT, PassFingerprint
from mindscore.archive.resuming import Past, begin, remainder
from mindscore.archive.unit import ScoredConversation, Unit
from mindscore.config.settings import Settings
from mindscore.conversation.conversation import Transcript

TOO_LARGE = "too large for --max-tokens"


@dataclass(frozen=True, slots=True)
class Server:
    """A server with its registry; ``conditions`` tell its model and the settings."""

    unit: Unit
    model: str
    conditions: str


@dataclass(frozen=True, slots=True)
class Work:
    """A conversation to score.

    ``content`` is that of its ``PassFingerprint``, ``keys`` are the memories that are asked for,
    and ``tokens`` is the survey's estimate of its length. ``prefers``: the conditions of the server
    that has begun it, if one has.
    """

    transcript: Transcript
    content: str
    keys: tuple[str, ...]
    tokens: int
    past: Past
    prefers: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The end of an attempt.

    ``scored`` is ``None`` where nothing was left to measure, or an ``error`` came before that.
    ``gave_up``: the server is down, or as good as.
    """

    fingerprint: PassFingerprint | None
    scored: ScoredConversation | None = None
    error: str | None = None
    gave_up: bool = False


class Attempts:
    """Scores conversations by the rules of one pass.

    ``settings`` are those of the pass, ``budget`` has the tokens that are left of it.
    """

    def __init__(
        self, command: str, settings: Settings, budget: TokenBudget, *, measure_again: bool
    ) -> None:
        self._command = command
        self._settings = settings
        self._options = settings.plugins.settings.get("memory-scoring", {})
        self._budget = budget
        self._measure_again = measure_again

    async def score(
        self, server: Server, work: Work, begun: Callable[[PassFingerprint], Awaitable[None]]
    ) -> Attempt:
        """Score what is left of a conversation; ``begun`` is awaited before anything is sent.

        Raises:
            StoreError: what ``begun`` raises.
        """
        if not self._budget.may_fit(work.tokens):
            return Attempt(None, error=TOO_LARGE)
        try:
            context = await server.unit.render(work.transcript)
        except ScorerUnavailable as error:
            return Attempt(None, error=format_error(error), gave_up=True)
        except MindhooksError as error:
            return Attempt(None, error=format_error(error))
        again, past = self._measure_again, work.past
        left = remainder(
            begin(past.known, work.content, server.conditions, measure_again=again),
            context,
            work.keys,
            self._command,
            past.scores,
            self._settings,
            measure_again=again,
        )
        if not left.keys:
            return Attempt(left.fingerprint.finished(context))
        most = self._most(context)
        granted = self._budget.reserve(most)
        if granted is not None and (granted < most if self._is_finetune else granted == 0):
            self._budget.settle(granted, 0)
            return Attempt(None, error=TOO_LARGE)
        await begun(left.fingerprint)
        options = {**self._options, **left.options}
        if granted is not None:
            options["max_tokens"] = granted
        scored = await server.unit.score(
            work.transcript, self._command, work.keys, options, past.rows
        )
        stats, why = scored.result.stats, scored.error
        self._budget.settle(granted, stats.prompt_tokens if stats else 0)
        if why is not None and server.unit.gave_up:
            return Attempt(left.fingerprint, scored, why, gave_up=True)
        if why is None and scored.is_left_out_in_part:
            why = BUDGET_SPENT
        ended = left.fingerprint if why is not None else left.fingerprint.finished(context)
        return Attempt(ended, scored, why)

    @property
    def _is_finetune(self) -> bool:
        return self._command == MindCommand.SCORE_FINETUNE

    def _most(self, context: Context) -> int:
        repeats = self._settings.memory.noise_repeats
        hold = bool(self._options.get("hold"))
        return most_tokens(
            context, self._command, hold=hold, repeats=1 if repeats == "auto" else repeats
        )
