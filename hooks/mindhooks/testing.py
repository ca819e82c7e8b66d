"""A stub host, for the tests of plugins and of hosts."""

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    MemoryScore,
    MindState,
    hookimpl,
)

__all__ = ["Heard", "StubActivity", "StubMind"]


class StubActivity(Activity):
    """An activity that appends what it is told to its mind's ``lines``."""

    def __init__(self, mind: "StubMind", message: str) -> None:
        self._mind = mind
        self.update(message)

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        self._mind.lines.append((message, done, total))

    def __enter__(self) -> "StubActivity":
        self._mind.open_activities += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._mind.open_activities -= 1


class StubMind:
    """A Mind over a fixed context that remembers what it was told.

    ``lines`` are the activity lines so far, ``(message, done, total)``; ``changes`` counts the
    calls of ``changed``. Assign ``snapshot`` to change the conversation.
    """

    def __init__(self, snapshot: Context | None = None) -> None:
        self.state = MindState()
        self.snapshot = snapshot or Context((), (), ())
        self.lines: list[tuple[str, int | None, int | None]] = []
        self.open_activities = 0
        self.changes = 0

    async def context(self) -> Context:
        return self.snapshot

    def activity(self, message: str) -> StubActivity:
        return StubActivity(self, message)

    def changed(self) -> None:
        self.changes += 1


class Heard:
    """A listener that keeps what it hears; register it by hand."""

    def __init__(self) -> None:
        self.scores: list[MemoryScore] = []
        self.candidates: list[FinetuneCandidate] = []

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        self.scores.append(score)

    @hookimpl
    def on_candidate(self, candidate: FinetuneCandidate) -> None:
        self.candidates.append(candidate)
