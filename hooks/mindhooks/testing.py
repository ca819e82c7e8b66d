"""A stub host and a listener, for the tests of plugins and of hosts."""

from mindhooks import (
    Activity,
    Context,
    FinetuneCandidate,
    FinetuneStats,
    MemoryScore,
    MemoryStats,
    MindState,
    Run,
    hookimpl,
)

__all__ = ["RecordingListener", "StubActivity", "StubMind"]


class StubActivity(Activity):
    """An activity that appends its updates to its mind's ``lines``."""

    def __init__(self, mind: "StubMind", message: str) -> None:
        self._mind = mind
        self.update(message)

    def update(self, message: str, done: int | None = None, total: int | None = None) -> None:
        """Append ``(message, done, total)``."""
        self._mind.lines.append((message, done, total))

    def __enter__(self) -> "StubActivity":
        self._mind.open_activities += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._mind.open_activities -= 1


class StubMind:
    """A Mind over a fixed context that records its calls.

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
        """Return ``snapshot``."""
        return self.snapshot

    def activity(self, message: str) -> StubActivity:
        """Return an activity that appends to ``lines``."""
        return StubActivity(self, message)

    def changed(self) -> None:
        """Count the call."""
        self.changes += 1


class RecordingListener:
    """A listener that keeps what it is told; register it by hand.

    Attributes:
        scores: every score, in order.
        candidates: every candidate, in order.
        run_ends: statistics and run of every run that ended, in order.
        runs: every run that any of these came with, once, in order.
    """

    def __init__(self) -> None:
        self.scores: list[MemoryScore] = []
        self.candidates: list[FinetuneCandidate] = []
        self.run_ends: list[tuple[MemoryStats | FinetuneStats | None, Run]] = []
        self.runs: list[Run] = []

    @hookimpl
    def on_score(self, score: MemoryScore, run: Run | None) -> None:
        """Keep a score."""
        self.scores.append(score)
        self._keep(run)

    @hookimpl
    def on_candidate(self, candidate: FinetuneCandidate, run: Run | None) -> None:
        """Keep a candidate."""
        self.candidates.append(candidate)
        self._keep(run)

    @hookimpl
    def on_run_end(self, stats: MemoryStats | FinetuneStats | None, run: Run) -> None:
        """Keep the end of a run."""
        self.run_ends.append((stats, run))
        self._keep(run)

    def _keep(self, run: Run | None) -> None:
        if run is not None and all(run is not known for known in self.runs):
            self.runs.append(run)
