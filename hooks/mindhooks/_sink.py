"""Training sinks: trainers, or files for one, that responses are handed to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from mindhooks._values import FinetuneCandidate


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A prompt, and the continuation that a model is to learn.

    Attributes:
        context_ids: the prompt, with memories or without, as ``context`` says.
        continuation_ids: the continuation to learn.
        rejected_ids: another continuation, less wanted; ``None`` where there is none.
        context: ``"bare"``: the prompt has no memories; ``"full"``: it has them.
        candidate: the candidate that the sample was made from; its ``timestamp_ns`` and
            ``continuation_ids`` identify the response.
        model: the model that the candidate was found with.
        namespace: the agent that it was found for.
        decision: ``"accepted"`` by a reviewer; ``None``: not reviewed.
        answer: the origin of ``continuation_ids``: the response as it was, the generated
            alternate, or a reviewer's edit.
        context_text: the text of ``context_ids``, names of special tokens included; ``None`` where
            the sink does not want texts. So too ``continuation_text`` and ``rejected_text``.
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
    """A trainer, or a file for one.

    Attributes:
        destination: its address, shown to people: it holds no secret.
        wants_text: samples come with their texts.
        wants_rejected: only samples that have ``rejected_ids`` come.
    """

    destination: str
    wants_text: bool
    wants_rejected: bool

    async def send(self, samples: Sequence[TrainingSample], key: str) -> str:
        """Hand ``samples`` over; return the job's id, or the file's name.

        ``key`` is 32 hexadecimal digits. The same samples may come again under the same key, where
        the outcome of the first time is unknown; they must not be trained twice then.

        Raises:
            NotAccepted: nothing was accepted, for certain; the samples may be sent again. After any
                other exception the outcome is unknown: they are kept, and not sent as new ones.
        """

    async def aclose(self) -> None:
        """Release connections and files."""
