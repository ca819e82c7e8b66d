"""What a training sink is: where responses go that a model is to be trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mindhooks._errors import MindhooksError
from mindhooks._values import FinetuneCandidate


class SinkError(MindhooksError):
    """A sink could not be built."""


class UnknownSink(SinkError):  # noqa: N818 - as UnknownScorer
    """No installed sink has the name that ``[train] sink`` gives."""


class NotAccepted(MindhooksError):  # noqa: N818 - as UnhandledCommand
    """It is certain that a sink accepted nothing of what it was given; the text says why."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """What a model learns from: a prompt, and what to say then.

    ``context_ids`` is the prompt, with memories or without as ``context`` says (``"bare"``: with
    none), ``continuation_ids`` what to say, ``rejected_ids`` another answer that is less wanted, if
    there is one. The texts are those of the ids, names of special tokens included; ``None`` where
    nobody asked for them.

    ``candidate`` is what it was made from: timestamp and ``continuation_ids`` of it name the
    response. ``model`` found it, for the agent ``namespace``; ``decision`` is ``None`` where nobody
    reviewed it, and ``answer`` what ``continuation_ids`` is of it.
    """

    context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...] | None
    context: Literal["bare", "full"]
    candidate: FinetuneCandidate
    model: str
    namespace: str
    decision: Literal["accepted"] | None = None
    answer: Literal["response", "alternate", "edited"] = "response"
    context_text: str | None = None
    continuation_text: str | None = None
    rejected_text: str | None = None


class TrainingSink(Protocol):
    """Where samples go: a trainer, or a file for one.

    ``destination`` says where that is, for people: it holds no secret. With ``wants_text``, samples
    come with their texts; with ``wants_rejected``, only those that have another answer come.
    """

    destination: str
    wants_text: bool
    wants_rejected: bool

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Hand ``samples`` over; the job's id, or the file's name.

        ``key`` is 32 hexadecimal digits. The same samples may come again under the same key, where
        it is not known what became of them: nothing must be trained twice then.

        Raises:
            NotAccepted: nothing was accepted, for certain; they may be sent again. After any other
                exception that is not known: they are kept, and not sent as new ones.
        """

    async def aclose(self) -> None:
        """Let go of connections and files."""
