"""The tokens of a screened matrix: what was spent, what exact rows cost, and what still fits."""

from __future__ import annotations

from collections.abc import Iterable

from mindscore.measure.screening.receipt import Unit
from mindscore.measure.screening.spans import NO_TOKENS, MemorySpans, Tokens
from mindscore.measure.usage import Usage

UNLIMITED = 2**62


class ScreenBudget:
    """Counts the tokens of a run against those that every row exactly would have taken.

    ``usage`` is the run's, with the baseline measured; ``keys`` are the memories whose rows are not
    known; ``spans`` are those of all memories. With ``hold``, each is measured alone, too. At most
    ``max_tokens`` are sent, where it is not 0.
    """

    def __init__(
        self, spans: MemorySpans, usage: Usage, keys: Iterable[str], *, hold: bool, max_tokens: int
    ) -> None:
        self.spans = spans
        self._usage = usage
        self._bare = spans.removing(spans.spans) if hold else NO_TOKENS
        self._costs = {key: self._cost(key, hold=hold) for key in keys}
        self.rows = self.cost(self._costs)
        """The cost of all rows."""
        self.exact = self.spent.plus(self.rows)
        """The cost of the run where every row is measured."""
        self.limit = Tokens(min(self.exact.sent, max_tokens or UNLIMITED), self.exact.computed)

    @property
    def spent(self) -> Tokens:
        """The tokens of the run so far."""
        found = spent_tokens(self._usage)
        return found if self.spans.reuses else Tokens(found.sent, found.sent)

    @property
    def each(self) -> Tokens:
        """The most that one prompt without some memories takes."""
        length = sum(len(prompt.tokens) for prompt in self.spans.prompts)
        return Tokens(length, length)

    @property
    def unit(self) -> Unit:
        """The unit that costs are told in."""
        known = self._usage.computed_tokens is not None
        return "computed" if self.spans.reuses and known else "sent"

    def in_unit(self, tokens: Tokens) -> int:
        """Return the number of ``tokens`` in ``unit``."""
        return tokens.in_unit(self.unit)

    def cost(self, keys: Iterable[str]) -> Tokens:
        """Return what the exact rows of ``keys`` take."""
        found = self._bare
        for key in keys:
            found = found.plus(self._costs[key])
        return found

    def fits(self, tokens: Tokens) -> bool:
        """Return whether so many more may be spent."""
        return self.spent.plus(tokens).within(self.limit)

    def affordable(
        self, keys: Iterable[str], reserve: Tokens = NO_TOKENS, limit: Tokens | None = None
    ) -> list[str]:
        """Return the first of ``keys`` whose rows are known or fit, with ``reserve`` left over.

        ``limit`` is that of the whole run, where it is a closer one.
        """
        taken, total = [], self._bare.plus(reserve)
        for key in keys:
            total = total.plus(self._costs.get(key, NO_TOKENS))
            within = limit is None or self.spent.plus(total).within(limit)
            if not (within and self.fits(total)):
                break
            taken.append(key)
        return taken

    def affordable_any(self, keys: Iterable[str], most: int) -> int:
        """Return how many of ``keys`` fit, whichever they are: ``most`` of them at most."""
        costs = {key: self._costs.get(key, NO_TOKENS) for key in keys}
        dearest = (sorted(costs, key=lambda key: -costs[key][unit])[:most] for unit in (0, 1))
        return min(len(self.affordable(its)) for its in dearest)

    def bare_is_measured(self) -> None:
        """Take note that the responses without any memory are known: they cost nothing now."""
        self._bare = NO_TOKENS

    def _cost(self, key: str, *, hold: bool) -> Tokens:
        dropped = self.spans.removing([key])
        if not hold:
            return dropped
        length = len(self.spans.ids(key))
        return dropped.plus(self._bare).plus(Tokens(length, length))


def spent_tokens(usage: Usage) -> Tokens:
    """Return the tokens of a run so far, and those computed of the calls that tell."""
    return Tokens(usage.prompt_tokens, usage.known_computed)


def passes_within(share: Tokens, each: Tokens) -> int:
    """Return how many prompts of the cost ``each`` fit into ``share``."""
    found = (share.sent // max(1, each.sent), share.computed // max(1, each.computed))
    return max(0, min(found))
