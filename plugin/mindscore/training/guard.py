"""The guard: answers to unrelated questions, which no training may make much less likely."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import msgspec
from msgspec import Struct

from mindhooks import ScorerError
from mindscore.conversation.template import NoTemplateError, RenderChat
from mindscore.training.sinks.formats import END, START

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
"""Some templates print one of their own where there is none."""


class UnrelatedAnswer(Struct, frozen=True):
    """A question that has nothing to do with anybody's memories, and its answer."""

    question: str
    answer: str

    async def texts(self, render: RenderChat | None) -> tuple[str, str]:
        """Return the prompt and the answer by the model's chat template; by ChatML without one.

        Raises:
            ScorerError: the template refuses them.
        """
        asked = {"role": "user", "content": self.question}
        if render is not None:
            try:
                return await self._rendered(render, [SYSTEM, asked])
            except NoTemplateError:
                pass
            except ScorerError:
                # Some templates refuse a system message.
                return await self._rendered(render, [asked])
        messages = [f"{START}{it['role']}\n{it['content']}{END}\n" for it in (SYSTEM, asked)]
        return "".join([*messages, f"{START}assistant\n"]), f"{self.answer}{END}"

    async def _rendered(
        self, render: RenderChat, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[str, str]:
        prompt = await render(messages, True)
        said = {"role": "assistant", "content": self.answer}
        whole = await render([*messages, said], False)
        # Some templates ask for more, such as a thought, than they print of an earlier response.
        answer = whole[len(prompt) :].rstrip() if whole.startswith(prompt) else self.answer
        return prompt, answer


def unrelated_answers() -> list[UnrelatedAnswer]:
    """Return the questions and answers of the guard, always the same ones.

    Nothing is trained on them, and no penalty holds a training to them.
    """
    lines = (files("mindscore") / "training" / "unrelated.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=UnrelatedAnswer) for line in lines]


class Losses(Struct, frozen=True):
    """The mean loss of some answers before a training and after it, in nats per token."""

    before: float
    after: float


class Guard(Struct, frozen=True, kw_only=True):
    """The losses of the unrelated answers, in nats per token, and by how much they may grow.

    ``before`` is with the adapter that the training went on from, ``base`` without any. ``limit``
    0: by any amount.
    """

    before: float
    after: float
    base: float
    limit: float
    passed: bool

    @classmethod
    def judge(cls, losses: Losses, base: float, limit: float) -> Guard:
        """Return the guard with its verdict; a loss that is no number does not pass."""
        rise = losses.after - losses.before
        passed = math.isfinite(rise) and (limit == 0 or rise <= limit)
        return cls(before=losses.before, after=losses.after, base=base, limit=limit, passed=passed)

    @property
    def words(self) -> str:
        """The losses and the verdict in words."""
        base = "" if self.base == self.before else f", {self.base:.3f} without any adapter"
        limit = f"limit {self.limit:+g}" if self.limit else "no limit"
        return (
            f"unrelated answers: {self.before:.3f} → {self.after:.3f} nats per token "
            f"({self.after - self.before:+.3f}, {limit}{base})"
        )
