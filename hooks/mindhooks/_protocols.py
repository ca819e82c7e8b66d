"""Scorers and training sinks: what others bring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

from mindhooks._errors import ScorerError
from mindhooks._values import FinetuneCandidate, WirePrompt

# ruff: noqa: ARG002 - parameters are named as in the protocol


Detokenize = Callable[[Sequence[int]], Awaitable[str]]
Fingerprint = Callable[[], Awaitable[str | None]]
ServedModels = Callable[[], Awaitable[Sequence[str]]]
TokenTexts = Callable[[Sequence[int]], Awaitable[Sequence[str]]]
RenderChat = Callable[..., Awaitable[str]]


@dataclass(frozen=True, slots=True)
class RangeScore:
    """The log-probability of one range, in nats: its total and, where known, each token's."""

    total: float
    values: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScoreResult:
    """A scorer's answer to one call.

    Attributes:
        ranges: one list per prompt, one ``RangeScore`` per range of the prompt, in order.
        computed_tokens: tokens that ran through the model for it, fewer than the prompts' where a
            KV cache was reused; ``None``: not known.
    """

    ranges: Sequence[Sequence[RangeScore]]
    computed_tokens: int | None = None

    @classmethod
    def of(cls, answer: ScoreResult | Sequence[Sequence[RangeScore]]) -> ScoreResult:
        """Return what a scorer's ``score`` returned as a ``ScoreResult``."""
        return answer if isinstance(answer, ScoreResult) else cls(answer)


KnockOut = Callable[[WirePrompt, Sequence[Sequence[tuple[int, int]]]], Awaitable[ScoreResult]]


@dataclass(frozen=True, slots=True)
class Generated:
    """Tokens and text that a model generated.

    ``token_ids`` has the end-of-turn, if generation came to it, and is ``None`` where a server
    returns text only; ``text`` is without it.
    """

    token_ids: tuple[int, ...] | None
    text: str


class Scorer(Protocol):
    """A model behind whatever serves it.

    Every method raises ``ScorerError`` when it cannot do what is asked, also where the scorer
    cannot generate or tokenise at all, and ``ScorerUnavailable`` when the same call may succeed
    later. A scorer may have any attribute of ``ScorerCapabilities`` besides; ``BaseScorer`` has all
    of them.
    """

    model: str

    async def score(
        self, prompts: Sequence[WirePrompt]
    ) -> ScoreResult | Sequence[Sequence[RangeScore]]:
        """Score every range of each prompt.

        Returns:
            A ``ScoreResult``, or its ``ranges`` alone as a plain list of lists.
        """

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Continue ``prompt`` greedily, to a token of ``stop`` or the model's own end-of-turn."""

    async def tokenize(self, text: str) -> list[int]:
        """Return the ids of ``text``.

        Names of special tokens in it become those tokens; none is added.
        """

    async def aclose(self) -> None:
        """Release connections, threads and memory."""


@dataclass(frozen=True, slots=True)
class ScorerCapabilities:
    """The optional attributes of a scorer, with what holds where a scorer has none.

    Attributes:
        noisy: the same prompt does not score the same each time, so flows measure by how much.
        reuses_prefixes: a prefix that a prompt shares with an earlier one is not computed again;
            ``None``: not known.
        self_tested: its server is tested before the first score of a run.
        adapter: path of the LoRA adapter that the model has, or ``None``.
        swaps_adapters: the model may get other weights under the same name at any time, so scores
            of an earlier run are reused only where ``fingerprint`` is the same.
        fingerprint: ``await fingerprint()`` returns a text that is another one for other weights,
            adapters or number formats, or ``None`` where the server does not say; ``None``: the
            model's name tells them apart.
        served_models: ``await served_models()`` returns the names of the models that its server
            lists, none where it lists none; ``None``: it asks no server that could.
        context_length: tokens that a prompt may have; ``None``: not known.
        device: what it computes on, where that is in this process: its speed is remembered by it.
        loading_s: the seconds that loading its model took; ``None``: it has loaded none.
        detokenize: ``await detokenize(ids)`` returns their text, special tokens included; ``None``:
            it cannot.
        token_texts: ``await token_texts(ids)`` returns the text of each id; ``None``: it cannot.
        render_chat: ``await render_chat(messages, add_generation_prompt)`` returns the text of
            ``{"role": …, "content": …}`` messages by the model's own chat template. Where the
            conversation has definitions of tools, they are a third argument. ``None``: it cannot.
        bos: the ids with which every prompt of the model is expected to begin; empty: none, or not
            known.
        takes_images: it reads ``WirePrompt.images``. Otherwise prompts have none: a placeholder is
            printed for each.
        knock_out: ``await knock_out(prompt, hidden)`` scores the prompt once for each of
            ``hidden``, half-open spans of its tokens: those of each response see everything but
            the spans, while all others stay as they are with everything there. A token always sees
            itself. ``ranges[i][j]`` of the ``ScoreResult`` is that of ``prompt.ranges[j]`` with
            ``hidden[i]``, best with the values of tokens; ``computed_tokens`` includes the
            prompt's own where they were not cached. ``None``: it cannot.
    """

    noisy: bool = False
    reuses_prefixes: bool | None = None
    self_tested: bool = False
    adapter: str | None = None
    swaps_adapters: bool = False
    fingerprint: Fingerprint | None = None
    served_models: ServedModels | None = None
    context_length: int | None = None
    device: str = ""
    loading_s: float | None = None
    detokenize: Detokenize | None = None
    token_texts: TokenTexts | None = None
    render_chat: RenderChat | None = None
    bos: tuple[int, ...] = ()
    takes_images: bool = True
    knock_out: KnockOut | None = None

    @classmethod
    def of(cls, scorer: Scorer) -> ScorerCapabilities:
        """Read the capabilities of any scorer, as they are now.

        Some scorers know them only after their first call.
        """
        names = [field.name for field in fields(cls)]
        return cls(**{name: getattr(scorer, name) for name in names if hasattr(scorer, name)})


_DEFAULTS = ScorerCapabilities()


class BaseScorer:
    """A ``Scorer`` to derive from: ``model`` and ``score`` are what it lacks.

    It has the attributes of ``ScorerCapabilities``, which says what they mean, with the same
    defaults.
    """

    model: str
    noisy: bool = _DEFAULTS.noisy
    reuses_prefixes: bool | None = _DEFAULTS.reuses_prefixes
    self_tested: bool = _DEFAULTS.self_tested
    adapter: str | None = _DEFAULTS.adapter
    swaps_adapters: bool = _DEFAULTS.swaps_adapters
    fingerprint: Fingerprint | None = _DEFAULTS.fingerprint
    served_models: ServedModels | None = _DEFAULTS.served_models
    context_length: int | None = _DEFAULTS.context_length
    device: str = _DEFAULTS.device
    loading_s: float | None = _DEFAULTS.loading_s
    detokenize: Detokenize | None = _DEFAULTS.detokenize
    token_texts: TokenTexts | None = _DEFAULTS.token_texts
    render_chat: RenderChat | None = _DEFAULTS.render_chat
    bos: tuple[int, ...] = _DEFAULTS.bos
    takes_images: bool = _DEFAULTS.takes_images
    knock_out: KnockOut | None = _DEFAULTS.knock_out

    async def score(
        self, prompts: Sequence[WirePrompt]
    ) -> ScoreResult | Sequence[Sequence[RangeScore]]:
        """Raise ``ScorerError``: every scorer has its own."""
        raise self._cannot("score")

    async def generate(
        self, prompt: WirePrompt, *, max_tokens: int, stop: Sequence[int]
    ) -> Generated:
        """Raise ``ScorerError``: the scorer cannot generate."""
        raise self._cannot("generate")

    async def tokenize(self, text: str) -> list[int]:
        """Raise ``ScorerError``: the scorer cannot tokenise."""
        raise self._cannot("tokenize")

    async def aclose(self) -> None:
        """Do nothing: there is nothing to release."""

    def _cannot(self, verb: str) -> ScorerError:
        return ScorerError(f"the scorer {type(self).__name__} cannot {verb}")


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
