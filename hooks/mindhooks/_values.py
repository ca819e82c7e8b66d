"""Values that hosts, flows and listeners exchange: contexts, prompts, scores, runs."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal, Protocol

from mindhooks._errors import MindhooksError


class Role(StrEnum):
    """The speaker of a node."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that stands in a node: its media type and its bytes."""

    mime: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a node's text; with a ``memory_key`` it is a memory printed inside that node."""

    text: str
    memory_key: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One message.

    ``token_ids`` is the whole node as it goes to the model, role header and end-of-turn included;
    ``body`` the half-open span in it that the model produced (end-of-turn included, header and the
    newline after it not; empty: no response). ``id`` is stable between snapshots.

    A node whose ``memory_key`` is set is a memory. A node with keyed ``parts`` prints memories
    inside its text: its ``render(skipped_keys)`` gives its ids without those parts.
    """

    id: str
    role: Role
    text: str
    token_ids: tuple[int, ...]
    body: tuple[int, int] = (0, 0)
    memory_key: str | None = None
    timestamp_ns: int | None = None
    images: tuple[Image, ...] = ()
    parts: tuple[Part, ...] = ()
    render: Callable[[frozenset[str]], Sequence[int]] | None = None

    def memory_keys(self) -> Iterator[str]:
        """Every memory key this node bears, its own and its parts', in order, repeats included."""
        if self.memory_key is not None:
            yield self.memory_key
        for part in self.parts:
            if part.memory_key is not None:
                yield part.memory_key


@dataclass(frozen=True, slots=True)
class WirePrompt:
    """Token ids that are sent to a model, and the spans in them whose log-probability is wanted.

    ``ranges`` are half-open spans in ``tokens``, one per response, in order; ``node_ids`` are the
    nodes they belong to, in the same order.
    """

    tokens: tuple[int, ...]
    images: tuple[Image, ...]
    ranges: tuple[tuple[int, int], ...]
    node_ids: tuple[str, ...]


class Prompts(Protocol):
    """Renders the prompts that ``Context.wire_prompts`` returns."""

    async def __call__(
        self, window: range, skip: Callable[[str], bool], asked: Collection[str] | None = None
    ) -> tuple[WirePrompt, ...]:
        """Return one prompt for the responses that share it."""


@dataclass(frozen=True, slots=True)
class Context:
    """An immutable snapshot of a conversation: three tuples of nodes, in prompt order.

    ``id`` names the conversation: it stays while the conversation grows, and no other conversation
    has it. A host with one conversation may leave it empty.
    """

    system: tuple[Node, ...]
    identity: tuple[Node, ...]
    conversation: tuple[Node, ...]
    id: str = ""
    prompts: Prompts | None = field(default=None, init=False, repr=False, compare=False)
    """Renders the prompts, where no prompt holds every response as it was generated: see
    ``with_prompts``."""
    _rendered: dict[tuple[int, frozenset[str]], tuple[int, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def wire_prompt(self, window: range, skip: Callable[[str], bool]) -> WirePrompt:
        """Return the prompt of system, identity and ``window``, less the memories that are skipped.

        ``window`` is a range of indices in ``conversation``. Nodes and parts whose key ``skip``
        names are left out. There is one range per assistant
        node kept whose body is not empty. A node with keyed parts is rendered once per set of
        skipped keys; every other node keeps its ids.

        Raises:
            MindhooksError: the window is not within the conversation, a node breaks the rules of
                ``Node``, two responses share an id, or a response starts at token 0, where nothing
                precedes it to condition on.
        """
        if self.prompts is not None:
            raise MindhooksError(
                "the model's chat template prints earlier messages differently later on: no prompt "
                "holds every response as it was generated; use await context.wire_prompts(…)"
            )
        if window and not 0 <= window[0] <= window[-1] < len(self.conversation):
            raise MindhooksError(
                f"{window} is not within a conversation of {len(self.conversation)} nodes"
            )
        tokens: list[int] = []
        images: list[Image] = []
        ranges: list[tuple[int, int]] = []
        node_ids: list[str] = []
        for node in self._nodes(window):
            if node.memory_key is not None and skip(node.memory_key):
                continue
            start = len(tokens)
            tokens.extend(self._ids(node, skip))
            images.extend(node.images)
            if node.role == Role.ASSISTANT and node.body[0] != node.body[1]:
                ranges.append(_response_span(node, start))
                node_ids.append(node.id)
        if len(set(node_ids)) != len(node_ids):
            twice = next(name for name in node_ids if node_ids.count(name) > 1)
            raise MindhooksError(f"two responses have the node id {twice!r}")
        return WirePrompt(tuple(tokens), tuple(images), tuple(ranges), tuple(node_ids))

    async def wire_prompts(
        self,
        window: range,
        skip: Callable[[str], bool],
        asked: Collection[str] | None = None,
    ) -> tuple[WirePrompt, ...]:
        """Return prompts that hold each response of ``window`` once, as it was generated.

        It is the one of ``wire_prompt``, unless the model's chat template prints earlier messages
        differently later on. ``asked`` are the node ids of the responses that are wanted; ``None``:
        all. Others may be there, too.

        Raises:
            MindhooksError: as ``wire_prompt``; or the template refuses a prompt.
        """
        if self.prompts is None:
            return (self.wire_prompt(window, skip),)
        return await self.prompts(window, skip, asked)

    def with_prompts(self, prompts: Prompts) -> "Context":
        """Return the snapshot with its prompts rendered by ``prompts``.

        A host needs it for a chat template that prints earlier messages differently later on.
        """
        made = replace(self)
        object.__setattr__(made, "prompts", prompts)
        return made

    def _nodes(self, window: range) -> Iterator[Node]:
        yield from self.system
        yield from self.identity
        for index in window:
            yield self.conversation[index]

    def _ids(self, node: Node, skip: Callable[[str], bool]) -> Sequence[int]:
        if not node.parts:
            return node.token_ids
        keys = {part.memory_key for part in node.parts if part.memory_key is not None}
        if keys and node.role == Role.ASSISTANT:
            raise MindhooksError(f"assistant node {node.id!r} has memories as parts")
        skipped = frozenset(key for key in keys if skip(key))
        if not skipped:
            return node.token_ids
        if node.render is None:
            raise MindhooksError(f"node {node.id!r} has memories as parts, but no render")
        # By identity: ids need not be unique outside the responses, and the snapshot keeps
        # its nodes alive.
        cached = self._rendered.get((id(node), skipped))
        if cached is None:
            cached = tuple(node.render(skipped))
            self._rendered[id(node), skipped] = cached
        return cached


def _response_span(node: Node, start: int) -> tuple[int, int]:
    first, last = node.body
    if not 0 <= first <= last <= len(node.token_ids):
        raise MindhooksError(
            f"node {node.id!r}: body {node.body} is not a span of its {len(node.token_ids)} tokens"
        )
    if start + first == 0:
        raise MindhooksError(
            f"response {node.id!r} starts at token 0 of the prompt: "
            "nothing precedes it, so it has no log-probability"
        )
    return start + first, start + last


OutcomeStatus = Literal[
    "scored", "estimated", "not-due", "past-cutoff", "no-response", "left-out", "failed"
]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a flow: the same object for everything that it emits, and for its end.

    Attributes:
        id: 32 hexadecimal digits, different for every run.
        command: the command that the flow answers.
        model: the scorer's model. Where there is no scorer, because it could not be built or the
            flow uses none, ``server.model`` of the settings, or ``""``.
        settings: a copy of the registry's settings, the whole TOML, taken when the run began.
        started_at: seconds since the epoch, as of ``time.time()``.
    """

    id: str
    command: str
    model: str
    settings: Mapping[str, Any]
    started_at: float


@dataclass(frozen=True, slots=True)
class ResponseDivergence:
    """The effect of removing a memory on one response.

    ``signed`` is the response's total log-probability with the memory minus the one without;
    ``divergence`` is ``max(0, signed)``. ``entry_idx`` is the response's index in
    ``Context.conversation``, ``node_id`` its node's id. ``noise`` is by how much the response's
    total varied when the same prompt was scored again (largest less smallest); ``None``: not
    measured. ``tokens`` is ``signed`` by token of the response's body, in order; ``None``: not
    asked for, nothing was measured, or the scorer gives totals only.
    """

    entry_idx: int
    node_id: str
    divergence: float
    signed: float
    noise: float | None = None
    tokens: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class MemoryScore:
    """One memory's score: the largest of its ``divergences``.

    ``mode`` is ``"incremental"`` (a window after the memory) or ``"full"`` (a row of the matrix).
    ``hold``, where it was asked for, is what this memory did alone: with it and no other, against
    none. ``fingerprint`` is a hash of what a row was measured from, the prompts with the memory and
    without it: the same prompts need not be scored again.
    """

    key: str
    score: float
    mode: Literal["incremental", "full"]
    divergences: tuple[ResponseDivergence, ...]
    hold: tuple[ResponseDivergence, ...] | None = None
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class FinetuneCandidate:
    """A response that depends on memories the model has not internalised.

    ``context_ids`` is the prompt from the conversation's start up to the response, memories
    included; ``bare_context_ids`` the same without any memory; ``continuation_ids`` the response.
    ``alternate_text`` and ``alternate_ids`` are what the model says from the bare context, or
    ``None`` where nothing was generated. ``noise`` is the divergence's, as in
    ``ResponseDivergence``.
    """

    entry_idx: int
    node_id: str
    divergence: float
    response_text: str
    prior_context: str
    context_ids: tuple[int, ...]
    bare_context_ids: tuple[int, ...]
    continuation_ids: tuple[int, ...]
    alternate_text: str | None
    alternate_ids: tuple[int, ...] | None
    timestamp_ns: int
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one memory in a run; ``error`` is set when ``status`` is ``"failed"``.

    ``"left-out"``: it did not fit in the tokens that the run may send. ``"estimated"``: a screen
    has estimated its effects, and has not measured them.
    """

    status: OutcomeStatus
    error: str | None = None


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """A memory run at its end.

    ``calls`` counts prompts scored, without retries; ``prompt_tokens`` what was sent;
    ``computed_tokens`` what ran through the model (``None``: the server does not say).
    """

    outcomes: Mapping[str, Outcome]
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FinetuneStats:
    """A finetune run at its end; ``above_threshold`` counts the candidates emitted."""

    responses_considered: int
    above_threshold: int
    threshold: float
    max_divergence: float
    calls: int
    prompt_tokens: int
    computed_tokens: int | None
    seconds: float
    error: str | None = None


@dataclass(slots=True)
class MindState:
    """The contents of a host's screen; flows and the recorder write it, the host reads it.

    ``response_scores`` holds the matrix by response: ``{node_id: {memory_key: divergence}}``.
    """

    scoring_in_flight: bool = False
    memory_scores: dict[str, float] = field(default_factory=dict)
    response_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    memory_last_run: MemoryStats | None = None
    finetune_candidates: list[FinetuneCandidate] = field(default_factory=list)
    finetune_last_run: FinetuneStats | None = None


class Activity(AbstractContextManager["Activity", None], Protocol):
    """A line of the host's screen about work in progress; gone when the ``with`` ends."""

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Replace the line; ``done`` of ``total`` steps are named where they are known."""


class Mind(Protocol):
    """A host: an agent with memories in its context."""

    state: MindState

    async def context(self) -> Context:
        """Return an immutable snapshot of the conversation; cheap to take."""

    def activity(self, message: str) -> Activity:
        """Show ``message`` for as long as the returned context manager is open."""

    def changed(self) -> None:
        """Wake the screen: called on the loop's thread after every write to ``state``."""
