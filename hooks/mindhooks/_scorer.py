"""What a scorer is: a model that says how likely given tokens are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mindhooks._context import WirePrompt


@dataclass(frozen=True, slots=True)
class RangeScore:
    """The log-probability of one range: its total and, where known, each token's, in nats."""

    total: float
    values: tuple[float, ...] | None = None


class Scores(list[list[RangeScore]]):
    """A scorer's answer that also says how many tokens ran through the model for it.

    A scorer that knows returns this instead of a plain list; ``computed_tokens`` is smaller than
    the prompts' tokens where a KV cache was reused.
    """

    def __init__(self, answers: Iterable[list[RangeScore]], computed_tokens: int) -> None:
        super().__init__(answers)
        self.computed_tokens = computed_tokens


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model said: its ids, end-of-turn included if it came to that, and its text without.

    ``token_ids`` is ``None`` where a server returns text only.
    """

    token_ids: tuple[int, ...] | None
    text: str


class Scorer(Protocol):
    """A model behind whatever serves it.

    Every method raises ``ScorerError`` when it cannot do what is asked: a scorer that cannot
    generate or tokenise says so with it.

    A scorer may also have ``noisy`` (true: the same prompt does not score the same each time, so
    flows measure by how much; absent: false), ``batch_size`` (how many prompts it sends to its
    server in one request; absent: 1), ``reuses_prefixes`` (whether what a prompt shares with an
    earlier one is computed only once; absent: not known) and ``self_tested`` (true: its server is
    tested before the first score of a run; absent: false).
    """

    model: str

    async def score(self, prompts: Sequence[WirePrompt]) -> list[list[RangeScore]]:
        """One list per prompt, one ``RangeScore`` per range of it, in order."""

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue ``prompt`` greedily, to a token of ``stop`` or the model's own end-of-turn."""

    async def tokenize(self, text: str) -> list[int]:
        """The ids of ``text``; names of special tokens in it become those tokens, none is added."""

    async def aclose(self) -> None:
        """Let go of connections, threads and memory."""
