"""The host is never harmed: not by exceptions, slow calls, deadlocks or leaks of plugins."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mindhooks import (
    Context,
    MemoryScore,
    MindCommand,
    Node,
    Registry,
    Role,
    ThreadedRegistry,
    Trigger,
    hookimpl,
)
from mindhooks.testing import RecordingListener, StubMind

from .attack import Attack, Finding

PLUGINS = 50
DISPATCH_S = 0.005
LAG_S = 0.05
WORK_S = 0.05
"""CPU seconds of the loop's thread between two ticks, which a busy machine does not change."""

TOKENS, MEMORIES, RESPONSES = 100_000, 20, 200
GRACE_S = 0.1
"""The listeners' time limit in these attacks; ``aclose`` may take twice that and a second."""

CTRL_C_S = 2.0


# -- dispatching ----------------------------------------------------------------------------------


class Idle:
    """Looks at every command, and listens to everything."""

    @hookimpl
    def on_trigger(self, command: str, mind: object, registry: Registry) -> None:
        return None

    @hookimpl
    def on_score(self, score: MemoryScore) -> None:
        pass

    @hookimpl
    async def on_candidate(self, candidate: object) -> None:
        pass


class Counts:
    """Answers ``count`` at once."""

    @hookimpl
    def on_trigger(self, command: str, registry: Registry) -> Trigger | None:
        if command != "count":
            return None
        return registry.task_handle("count").trigger_if_idle(self._run)

    async def _run(self) -> None:
        await asyncio.sleep(0)


def dispatch_time(trials: int) -> Finding:
    """How long ``dispatch`` takes with fifty plugins."""
    times = asyncio.run(_dispatches(trials))
    median = statistics.median(times)
    slow = [f"median {median * 1e3:.2f} ms"] if median > DISPATCH_S else []
    return Finding(
        "dispatch returns within 5 ms (median)",
        f"{PLUGINS} plugins registered",
        trials,
        slow,
        f"median {median * 1e3:.2f} ms, largest {max(times) * 1e3:.1f} ms",
    )


async def _dispatches(count: int) -> list[float]:
    times = []
    async with Registry(StubMind(), {"server": {"scorer": "toy"}}) as registry:
        registry.load_entry_points()
        registry.register(Counts(), name="counts")
        for number in range(PLUGINS - len(registry.plugins())):
            registry.register(Idle(), name=f"idle-{number}")
        for _ in range(count):
            started = time.perf_counter()
            registry.dispatch("count")
            times.append(time.perf_counter() - started)
            await asyncio.sleep(0)
    return times


# -- the event loop -------------------------------------------------------------------------------


def event_loop(trials: int) -> Finding:
    """How long the loop is kept from a ticker while a long conversation is scored over HTTP."""
    ticks: list[Tick] = []
    failures = []
    with _model_server() as url:
        for number in range(trials):
            scorer = ("score", "vllm")[number % 2]
            found, error = asyncio.run(_score_long(scorer, url))
            ticks += found
            if error is not None:
                failures.append(f"{scorer}: {error}")
    at = int(len(ticks) * 0.999)
    lags, work = (sorted(its) for its in zip(*ticks, strict=True))
    if lags[at] > LAG_S:
        failures.append(f"99.9th percentile {lags[at] * 1e3:.0f} ms")
    if work[at] > WORK_S:
        failures.append(f"99.9th percentile of the loop's own work {work[at] * 1e3:.0f} ms")
    return Finding(
        "the event loop is not blocked for more than 50 ms (99.9th percentile)",
        f"a ticker, while {TOKENS:,} tokens are scored over HTTP by all flows "
        "(score and vllm in turn)",
        trials,
        failures,
        f"{len(lags):,} ticks: 99.9th percentile {lags[at] * 1e3:.0f} ms, "
        f"largest {lags[-1] * 1e3:.0f} ms; of the loop's own work {work[at] * 1e3:.0f} ms",
    )


@contextlib.contextmanager
def _model_server() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.faults.model_server"]
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdin
        assert process.stdout
        yield process.stdout.readline().strip()
        process.stdin.close()
        process.wait(10)


async def _score_long(scorer: str, url: str) -> tuple[list[Tick], str | None]:
    ticks: list[Tick] = []
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "server": {"scorer": scorer, "base_url": url, "model": "m", "self_test": False},
            "store": {"url": f"sqlite:///{folder}/store.sqlite3"},
            "memory": {"interval_s": 0, "noise_repeats": 0},
        }
        mind = StubMind(long_context())
        async with Registry(mind, settings) as registry:
            registry.load_entry_points()
            ticking = asyncio.create_task(_tick(ticks))
            for command in MindCommand:
                registry.dispatch(command)
                await registry.wait_idle()
            ticking.cancel()
    state = mind.state
    runs = (state.memory_last_run, state.finetune_last_run)
    return ticks, next((run.error for run in runs if run is None or run.error), None)


class Tick(NamedTuple):
    """Seconds that a tick was late, and CPU seconds of the loop's thread since the one before."""

    late: float
    work: float


async def _tick(ticks: list[Tick], every_s: float = 0.001) -> None:
    while True:
        due, begun = time.perf_counter() + every_s, time.thread_time()
        await asyncio.sleep(every_s)
        late = max(0.0, time.perf_counter() - due)
        ticks.append(Tick(late, time.thread_time() - begun))


def long_context(memories: int = MEMORIES, responses: int = RESPONSES) -> Context:
    """Memories first, then turns of equal length, ``TOKENS`` in all."""
    each = (TOKENS - memories * 20) // (2 * responses)
    identity = tuple(
        Node(f"m{n}", Role.MEMORY, "m", tuple(range(n, n + 20)), memory_key=f"m{n}")
        for n in range(memories)
    )
    turns = []
    for n in range(responses):
        ids = tuple((n * 7 + it) % 50_000 for it in range(each))
        turns.append(Node(f"u{n}", Role.USER, "u", ids))
        turns.append(Node(f"a{n}", Role.ASSISTANT, "a", ids, body=(4, each)))
    return Context((), identity, tuple(turns))


# -- plugins that misbehave -----------------------------------------------------------------------

ERRORS = (
    RuntimeError("broken"),
    SystemExit(3),
    asyncio.CancelledError(),
    GeneratorExit(),
    MemoryError(),
    RecursionError("deep"),
)
Misdeed = Callable[[random.Random, "Bad"], Awaitable[None]]


async def _raises(chance: random.Random, bad: Bad) -> None:
    raise chance.choice(ERRORS)


async def _hangs(chance: random.Random, bad: Bad) -> None:
    await bad.release.wait()


async def _is_deaf(chance: random.Random, bad: Bad) -> None:
    while not bad.release.is_set():
        with contextlib.suppress(asyncio.CancelledError):
            await bad.release.wait()


async def _leaks(chance: random.Random, bad: Bad) -> None:
    bad.leaked.add(asyncio.create_task(bad.release.wait()))


async def _waits_for_all(chance: random.Random, bad: Bad) -> None:
    await bad.registry.wait_idle()


async def _closes(chance: random.Random, bad: Bad) -> None:
    if bad.may_close:
        await bad.registry.aclose()


async def _emits_again(chance: random.Random, bad: Bad) -> None:
    if chance.random() < 0.3:
        await bad.registry.emit_score(MemoryScore("again", 1.0, "full", ()))


async def _cancels_itself(chance: random.Random, bad: Bad) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


MISDEEDS: tuple[Misdeed, ...] = (
    _raises, _hangs, _is_deaf, _leaks, _waits_for_all, _closes, _emits_again, _cancels_itself,
)  # fmt: skip


class Bad:
    """One misdeed in each of its places: where it is plain, it raises."""

    def __init__(self, chance: random.Random, registry: Registry) -> None:
        self.chance = chance
        self.registry = registry
        self.release = asyncio.Event()
        self.leaked: set[asyncio.Task[Any]] = set()
        self.may_close = False
        self._misdeeds = [chance.choice(MISDEEDS) for _ in range(4)]

    async def _do(self, place: int) -> None:
        await self._misdeeds[place](self.chance, self)

    @hookimpl
    def on_trigger(self, command: str, registry: Registry) -> Any:
        if command == "bad":
            handle = registry.task_handle(f"bad-{id(self)}")
            trigger = self.chance.choice((handle.trigger, handle.trigger_if_idle))
            return trigger(lambda: self._do(0))
        if self.chance.random() < 0.3:
            raise self.chance.choice(ERRORS)
        return self.chance.choice((None, "started", 7))

    @hookimpl(specname="on_score")
    async def queued(self, score: MemoryScore) -> None:
        await self._do(1)

    @hookimpl(specname="on_score", tryfirst=True)
    async def awaited(self, score: MemoryScore) -> None:
        await self._do(2)

    @hookimpl(specname="on_score")
    def plain(self, score: MemoryScore) -> None:
        if self.chance.random() < 0.5:
            raise self.chance.choice(ERRORS)

    @hookimpl
    async def on_run_end(self) -> None:
        await self._do(1)

    async def aclose(self) -> None:
        await self._do(3)


class Good:
    """Emits three scores when told ``good``."""

    @hookimpl
    def on_trigger(self, command: str, registry: Registry) -> Trigger | None:
        if command != "good":
            return None
        return registry.task_handle("good").trigger_if_idle(lambda: self._emit(registry))

    async def _emit(self, registry: Registry) -> None:
        async with registry.run("good", uses_scorer=False):
            for number in range(3):
                await registry.emit_score(MemoryScore(f"good-{number}", 1.0, "full", ()))


def plugins(trials: int) -> Finding:
    """Plugins that raise, hang, heed no cancellation, leak and close, in every hook at random."""
    failures, longest = [], 0.0
    logging.disable(logging.CRITICAL)
    try:
        for seed in range(trials):
            problems, closing_s = asyncio.run(_among_bad_plugins(random.Random(seed)))
            failures += [f"seed {seed}: {problem}" for problem in problems]
            longest = max(longest, closing_s)
    finally:
        logging.disable(logging.NOTSET)
    return Finding(
        "no exception, hang or leak of a plugin reaches the host; aclose ends within its grace",
        "1 to 5 plugins, each hook raising, hanging, deaf to cancellation, leaking tasks, "
        "re-entering or closing the registry at random",
        trials,
        failures,
        f"longest aclose {longest:.2f} s of {2 * GRACE_S + 1:.1f} s",
    )


async def _among_bad_plugins(chance: random.Random) -> tuple[list[str], float]:
    problems: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: problems.append(str(context)))
    heard = RecordingListener()
    registry = Registry(StubMind(), {"plugins": {"listener_timeout_s": GRACE_S}})
    bad = [Bad(chance, registry) for _ in range(chance.randint(1, 5))]
    for number, plugin in enumerate(bad):
        registry.register(plugin, name=f"bad-{number}")
    registry.register(Good(), name="good")
    registry.register(heard, name="heard")
    try:
        answers = registry.dispatch("good")
        if answers.get("good") != Trigger.STARTED:
            problems.append(f"dispatch answered {answers}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(registry.task_handle("good").wait(), 10 * GRACE_S + 5)
        keys = [score.key for score in heard.scores if score.key != "again"]
        if keys != ["good-0", "good-1", "good-2"]:
            problems.append(f"a good plugin was heard to say {keys}")
        for plugin in bad:
            plugin.may_close = True
        registry.dispatch("bad")
        await asyncio.sleep(0)
    except BaseException as error:
        problems.append(f"the host met {error!r}")
    started = time.monotonic()
    # Half of them are closed while the bad ones are at it, the others once they hang.
    if chance.random() < 0.5:
        await asyncio.sleep(GRACE_S / 2)
    await registry.aclose()
    closing_s = time.monotonic() - started
    if closing_s > 2 * GRACE_S + 1.5:
        problems.append(f"aclose took {closing_s:.1f} s")
    for plugin in bad:
        plugin.release.set()
    leaked = {task for plugin in bad for task in plugin.leaked}
    left = asyncio.all_tasks() - leaked - {asyncio.current_task()}
    if left:
        # Those that heed nothing were waiting for this.
        _, left = await asyncio.wait(left, timeout=5)
    problems += [f"left behind: {task}" for task in left]
    await asyncio.gather(*leaked)
    del left
    gc.collect()
    return problems, closing_s


# -- a host without a loop ------------------------------------------------------------------------


def threads(trials: int) -> Finding:
    """Threads that dispatch at once to a registry in a thread of its own."""
    failures, before = [], threading.active_count()
    with ThreadedRegistry(StubMind(), {"plugins": {"listener_timeout_s": GRACE_S}}) as registry:
        heard = RecordingListener()
        registry.register(Good(), name="good")
        registry.register(heard, name="heard")
        answers: list[Trigger] = []
        per_thread = max(1, trials // 8)

        def dispatch() -> None:
            answers.extend(registry.dispatch("good")["good"] for _ in range(per_thread))

        workers = [threading.Thread(target=dispatch) for _ in range(8)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(120)
        if not registry.wait_idle(30):
            failures.append("not idle after 30 s")
        started = answers.count(Trigger.STARTED)
        if len(answers) != 8 * per_thread or len(heard.scores) != 3 * started:
            failures.append(f"{len(answers)} answers, {started} runs, {len(heard.scores)} scores")
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    if threading.active_count() > before:
        failures.append("threads left behind")
    return Finding(
        "a ThreadedRegistry is safe to dispatch to from any thread",
        "8 threads at once",
        8 * per_thread,
        failures,
        f"{started:,} runs",
    )


# -- Ctrl-C ---------------------------------------------------------------------------------------


def interrupted(trials: int) -> Finding:
    """Ctrl-C at a random moment of the real command."""
    failures, times = [], []
    with tempfile.TemporaryDirectory() as folder, _model_server() as url:
        for seed in range(trials):
            problem, seconds = _interrupt(random.Random(seed), Path(folder), url)
            times.append(seconds)
            if problem:
                failures.append(f"seed {seed}: {problem}")
    return Finding(
        "Ctrl-C ends a command within 2 s, what was scored is kept, and it says so",
        "SIGINT at a random moment of mindscore score, with and without --full",
        trials,
        failures,
        f"longest {max(times):.2f} s",
    )


def _interrupt(chance: random.Random, folder: Path, url: str) -> tuple[str | None, float]:
    transcript, store = folder / "talk.jsonl", folder / f"{chance.random()}.sqlite3"
    transcript.write_text("".join(_lines()), encoding="utf-8")
    options = [
        "--set", "server.scorer=score", "--set", f"server.base_url={url}", "--set",
        "server.concurrency=1", "--set", "memory.token_cutoff=1", "--set",
        f"store.url=sqlite:///{store}", *(["--full"] if chance.random() < 0.5 else []),
    ]  # fmt: skip
    command = [sys.executable, "-c", _RUN, "score", str(transcript), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        # Before that, no command is running yet that could be interrupted.
        process.stdout.readline()
        time.sleep(chance.random() * 1.2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            return "it went on", 20.0
    seconds = time.monotonic() - started
    # At its very end, Python itself has no handler any more: all had been said by then.
    if process.returncode == 0 or (process.returncode == -signal.SIGINT and out.strip()):
        return None, seconds
    if process.returncode != 130 or seconds > CTRL_C_S:
        return f"status {process.returncode} after {seconds:.1f} s: {err}", seconds
    if not err.startswith("mindscore: interrupted") or len(err.splitlines()) != 1:
        return f"it said {err!r}", seconds
    return _is_kept(err, store), seconds


_RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from mindscore.cli import main
print("begun", flush=True)
sys.exit(main())
"""


def _is_kept(said: str, store: Path) -> str | None:
    """What is wrong with what the command said of what it scored."""
    import sqlite3

    if "memories were scored" not in said:
        return None
    claimed = int(said.split("interrupted: ")[1].split()[0])
    kept = 0
    if store.exists():
        with contextlib.closing(sqlite3.connect(store)) as connection:
            counts = (
                "SELECT (SELECT count(*) FROM memories)"
                " + (SELECT count(DISTINCT key) FROM cells WHERE mode = 'full')"
            )
            kept = connection.execute(counts).fetchone()[0]
    return None if kept >= claimed else f"claimed {claimed}, kept {kept}"


def _lines() -> Iterator[str]:
    for number in range(30):
        yield f'{{"role":"memory","key":"m{number}","content":"x","token_ids":[{number},3]}}\n'
        yield '{"role":"user","content":"u","token_ids":[4,5]}\n'
        yield '{"role":"assistant","content":"a","token_ids":[6,7,8],"body":[1,3]}\n'


ATTACKS: dict[Attack, int] = {
    dispatch_time: 10_000,
    event_loop: 6,
    plugins: 200,
    threads: 8_000,
    interrupted: 60,
}
