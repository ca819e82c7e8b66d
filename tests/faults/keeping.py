"""Nothing is lost: kills, full and read-only disks, many processes, old and broken files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from aiohttp import web
from tests.mindscore.forks import ForkServer

from mindhooks import FinetuneCandidate, MemoryScore
from mindscore._util.errors import StoreError, TrainError, UsageError
from mindscore.config.settings import StoreSettings
from mindscore.measure.prompts import response_hash
from mindscore.store import Sends, Store
from mindscore.store.store import read_exchange
from mindscore.training.outbox import send_to_train

from .attack import Attacks, Finding
from .disks import NoDiskError, small_disk

SEED = 4
COMMAND_S = 120
Tables = dict[str, list[dict[str, Any]]]
OLD_STORES = Path(__file__).parents[1] / "mindscore" / "store"
KEPT = {
    "score": "SELECT key, score FROM memories WHERE key GLOB 'k[0-9]*'",
    "score-full": "SELECT key, max(divergence) FROM cells WHERE key GLOB 'k[0-9]*' GROUP BY key",
}
"""What of a run is in the store, by command."""


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mindscore-faults-") as folder:
        yield Path(folder)


def _query(file: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute(query).fetchall()


def _lay_out_old(file: Path, version: int) -> Tables:
    """Make an old version's store; its tables' rows."""
    with closing(sqlite3.connect(file)) as connection:
        script = OLD_STORES.joinpath(f"version-{version}.sql").read_text(encoding="utf-8")
        connection.executescript(script)
    return _tables(file)


def _tables(file: Path) -> Tables:
    names = _query(file, "SELECT name FROM sqlite_master WHERE type = 'table'")
    return {name: _rows(file, name) for (name,) in names}


def _rows(file: Path, table: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]


def _lost(before: Tables, file: Path) -> list[str]:
    """The tables of which rows are gone; a newer version's may have more columns."""
    after = _tables(file)
    return [name for name, rows in before.items() if not _are_in(rows, after.get(name, []))]


def _are_in(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> bool:
    columns = list(rows[0]) if rows else []
    there = {tuple(other.get(name) for name in columns) for other in others}
    return all(tuple(row.values()) in there for row in rows)


# -- kill -9 --------------------------------------------------------------------------------------


class _Victims:
    """Starts runs in processes of their own, and kills them when it is told to."""

    def __init__(self, folder: Path) -> None:
        self._server = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("victim.py"), folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, command: str, folder: Path, journal: str, kill_after_s: float | None = None
    ) -> dict[str, Any]:
        request = {
            "command": command,
            "url": f"sqlite:///{folder}/store",
            "resume": True,
            "journal": f"{folder}/{journal}",
            "kill_after_s": kill_after_s,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        self._server.communicate()


def killed(trials: int) -> Finding:
    """Kill runs at random moments, a new store's and a migration's among them."""
    failures: list[str] = []
    heard: list[int] = []
    kills = 0
    chance = random.Random(SEED)
    with _folder() as folder:
        victims = _Victims(folder)
        try:
            whole = {}
            for command in KEPT:
                (folder / command).mkdir()
                run = victims.run(command, folder / command, "journal")
                whole[command] = run["seconds"], _kept(folder / command / "store", command)
            for trial in range(trials):
                command, is_old = chance.choice([*KEPT]), chance.random() < 0.5
                seconds, scores = whole[command]
                here = folder / str(trial)
                here.mkdir()
                before = _lay_out_old(here / "store", 1) if is_old else {}
                run = victims.run(command, here, "journal", chance.uniform(0, seconds))
                kills += run["killed"]
                journal = here / "journal"
                told = journal.read_text().split() if journal.exists() else []
                heard.append(len(told))
                fault = _fault_after_kill(victims, command, here, before, told, scores)
                if fault:
                    failures.append(f"trial {trial}, {command} after {len(told)} scores: {fault}")
                shutil.rmtree(here)
        finally:
            victims.close()
    spread = f"{kills} killed, after {min(heard)} to {max(heard)} of {len(scores)} scores"
    return Finding(
        "every score that a listener was told of is in the store; the next run goes on from there",
        "kill -9 of a real process at a random moment of a run",
        trials,
        failures,
        spread,
    )


def _fault_after_kill(
    victims: _Victims,
    command: str,
    folder: Path,
    before: Tables,
    told: list[str],
    scores: dict[str, float],
) -> str | None:
    file = folder / "store"
    if file.exists() and _query(file, "PRAGMA integrity_check") != [("ok",)]:
        return "the store is damaged"
    kept = _kept(file, command)
    if missing := [key for key in told if key not in kept or kept[key] != scores.get(key)]:
        return f"{missing} are not in the store as they were told"
    if wrong := {key for key, score in kept.items() if scores.get(key) != score}:
        return f"{wrong} are in the store with other scores"
    again = victims.run(command, folder, "again")
    if again["killed"] or again["error"]:
        return f"the next run failed: {again.get('error')}"
    if lost := _lost(before, file):
        return f"rows of {lost} are gone"
    if _kept(file, command) != scores:
        return "after the next run, not every score is in the store"
    missing = scores.keys() - kept.keys()
    if again["calls"] != (len(missing) + 1 if missing else 0):
        return f"the next run made {again['calls']} calls for {len(missing)} scores"
    return None


def _kept(file: Path, command: str) -> dict[str, float]:
    # Without a file, or in an empty one, there is no table yet.
    return dict(_query(file, KEPT[command])) if file.exists() and _tables(file) else {}


# -- disks ----------------------------------------------------------------------------------------

TALK = [
    {"role": "system", "content": "You help."},
    *({"role": "memory", "key": f"k{it}", "content": f"A word{it} word{it}."} for it in range(6)),
    {"role": "user", "content": "Which words?"},
    *({"role": "assistant", "content": f"It is word{it}."} for it in range(6)),
]


def _command(
    commands: ForkServer, folder: Path, file: Path, *options: str
) -> tuple[int, dict[str, Any], str]:
    """``mindscore score`` with the toy: its status, its document, its complaints."""
    talk = folder / "talk.jsonl"
    talk.write_text("".join(json.dumps(line) + "\n" for line in TALK), encoding="utf-8")
    sets = {"server.scorer": "toy", "store.url": f"sqlite:///{file}", "memory.token_cutoff": "1.0"}
    settings = [it for key, value in sets.items() for it in ("--set", f"{key}={value}")]
    ran = commands.run(
        ["score", str(talk), "--json", *options, *settings],
        {**os.environ, "XDG_CONFIG_HOME": str(folder)},
        COMMAND_S,
    )
    return ran.returncode, json.loads(ran.stdout), ran.stderr


def _fault_of_run(ran: tuple[int, dict[str, Any], str], file: Path, cause: str) -> str | None:
    """What is wrong with a run whose scores could not be kept, or ``None``."""
    status, document, said = ran
    if status != 1:
        return f"exit status {status}"
    error = str(document["stats"]["error"])
    if str(file) not in error or cause not in error or "Traceback" in said:
        return f"says {error!r} and {said!r}"
    if document["command"] == "score":
        is_whole = all(it["status"] == "scored" for it in document["scores"])
    else:
        is_whole = None not in [it for row in document["matrix"] for it in row]
    return None if is_whole else "not every score is printed"


def full_disk(trials: int) -> Finding:
    """Run the command while its store's disk is full, or becomes full at some point."""
    promise = "a full disk is said, results are printed, the store is intact"
    attack = "mindscore score with its store on a full disk"
    failures: list[str] = []
    chance = random.Random(SEED)
    with ForkServer() as commands:
        for trial in range(trials):
            try:
                with _folder() as folder, small_disk(64) as disk:
                    file = disk.folder / "data" / "store"
                    command = chance.choice([[], ["--full"]])
                    before = {}
                    if chance.random() < 0.7:
                        namespace = "--set", "store.namespace=other"
                        _command(commands, folder, file, *command, *namespace)
                        before = _tables(file)
                    disk.fill(chance.choice([0, 0, 0, 1, 2]))
                    ran = _command(commands, folder, file, *command, "--all")
                    fault = _fault_of_run(ran, file, "full") or _fault_of_store(file, before)
            except NoDiskError as why:
                return Finding(promise, attack, 0, figure=f"no disk to fill: {why}")
            if fault:
                failures.append(f"trial {trial}, {command}: {fault}")
    return Finding(promise, attack, trials, failures)


def read_only(trials: int) -> Finding:
    """Run the command while its store's disk is read-only."""
    promise = "a read-only store is read; that nothing is kept is said, results are printed"
    attack = "mindscore score with its store on a read-only disk"
    failures: list[str] = []
    chance = random.Random(SEED)
    with ForkServer() as commands:
        for trial in range(trials):
            try:
                with _folder() as folder, small_disk(128) as disk:
                    file = disk.folder / "data" / "store"
                    command = chance.choice([[], ["--full"]])
                    is_there = chance.random() < 0.7
                    if is_there:
                        _command(commands, folder, file)
                    before = _tables(file) if is_there else {}
                    disk.lock()
                    ran = _command(commands, folder, file, *command, "--all")
                    fault = _fault_of_run(ran, file, "ead-only") or _fault_of_store(file, before)
                    if is_there and not fault:
                        status, document, _ = _command(commands, folder, file)
                        if status or {it["status"] for it in document["scores"]} != {"not-due"}:
                            fault = "what is in the store was not read"
            except NoDiskError as why:
                return Finding(promise, attack, 0, figure=f"no disk to lock: {why}")
            if fault:
                failures.append(f"trial {trial}, {command}: {fault}")
    return Finding(promise, attack, trials, failures)


def _fault_of_store(file: Path, before: Tables) -> str | None:
    if not before and not file.exists():
        return None
    if _query(file, "PRAGMA integrity_check") != [("ok",)]:
        return "the store is damaged"
    return f"rows of {lost} are gone" if (lost := _lost(before, file)) else None


# -- many processes -------------------------------------------------------------------------------

PROCESSES, WRITES = 10, 200

WRITER = """
import asyncio, sys
from mindhooks import MemoryScore, ResponseDivergence
from mindscore.config.settings import StoreSettings
from mindscore.store import Store

url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

async def main():
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(count):
        store, key = Store(StoreSettings(url)), ("shared", name)[number % 2]
        value = 2.0 if key == "shared" else float(number)
        if number % 10 == 0:
            cells = (ResponseDivergence(0, f"{name}-{number}", 1.0, 1.0),)
            await store.record_row(MemoryScore(name, 1.0, "full", cells, None, "f"), "m")
        await store.record_score(MemoryScore(key, value, "incremental", ()), "m", 0.5)
        await store.last_scored("m")

asyncio.run(main())
"""


def many_processes(trials: int, writes: int = WRITES, processes: int = PROCESSES) -> Finding:
    """Have processes write to one store, and read from it, as fast as they can."""
    failures: list[str] = []
    seconds = 0.0
    for trial in range(trials):
        with _folder() as folder:
            file = folder / "new" / "store"
            arguments = [sys.executable, "-c", WRITER, f"sqlite:///{file}"]
            pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            running = [
                subprocess.Popen([*arguments, f"own-{it}", str(writes)], text=True, **pipes)
                for it in range(processes)
            ]
            for process in running:
                process.stdout.readline()
            started = time.monotonic()
            for process in running:
                process.stdin.write("go\n")
                process.stdin.flush()
            said = [process.communicate()[1] for process in running]
            seconds += time.monotonic() - started
            failures += [f"trial {trial}: {it.splitlines()[-1]}" for it in said if it]
            failures += [f"trial {trial}: {it}" for it in _inexact(file, writes, processes)]
    written = f"{trials * processes * writes / seconds:.0f} scores a second"
    return Finding(
        "many processes share a store: none finds it locked, weights and counts are exact",
        f"{processes} processes that write {writes} times each, and read",
        trials,
        failures,
        written,
    )


def _inexact(file: Path, writes: int, processes: int) -> Iterator[str]:
    found = {key: row for key, *row in _query(file, "SELECT key, weight, count FROM memories")}
    weight = 0.0
    for number in range(1, writes, 2):
        weight = float(number) if number == 1 else 0.5 * number + 0.5 * weight
    wanted = {f"own-{it}": [weight, writes // 2] for it in range(processes)}
    wanted["shared"] = [2.0, processes * writes // 2]
    if found != wanted:
        yield f"{found} instead of {wanted}"
    if _query(file, "SELECT count(*) FROM cells") != [(processes * writes // 10,)]:
        yield "not every cell is there"


# -- versions -------------------------------------------------------------------------------------


def versions(trials: int) -> Finding:
    """Open old, newer, foreign and truncated files, reading or writing."""
    failures: list[str] = []
    chance = random.Random(SEED)
    kinds = (_old, _newer, _foreign, _truncated)
    for trial in range(trials):
        kind = kinds[trial % len(kinds)]
        with _folder() as folder:
            fault = asyncio.run(kind(folder / "store", chance))
        if fault:
            failures.append(f"trial {trial}, {kind.__name__[1:]}: {fault}")
    return Finding(
        "an older store is migrated with all its rows; a newer, foreign or cut one is refused",
        "opening such files, which are left byte for byte where they are refused",
        trials,
        failures,
    )


def _any_act(chance: random.Random) -> Callable[[Store], Any]:
    score = MemoryScore("k", 1.0, "incremental", ())
    return chance.choice(
        [
            lambda store: store.memories(),
            lambda store: store.trained(),
            lambda store: store.rows("m"),
            lambda store: store.record_score(score, "m", 0.5),
            lambda store: store.import_trained([17]),
        ]
    )


async def _old(file: Path, chance: random.Random) -> str | None:
    _lay_out_old(file, 1)
    with closing(sqlite3.connect(file)) as connection, connection:
        # Beside the rows that every table has: many, so that there are pages to lose.
        for _ in range(chance.randrange(400)):
            hash_ = response_hash([chance.randrange(10**9)])
            row = ("default", chance.randrange(-(2**63), 2**63), hash_, None, 1.0)
            connection.execute("INSERT OR IGNORE INTO trained VALUES (?, ?, ?, ?, ?)", row)
    before = _tables(file)
    store = Store(StoreSettings(f"sqlite:///{file}", retention_days=0))
    await _any_act(chance)(store)
    if lost := _lost(before, file):
        return f"rows of {lost} are gone"
    await store.record_score(MemoryScore("new", 1.0, "incremental", ()), "m", 0.5)
    is_there = any(memory.key == "new" for memory in await store.memories())
    return None if is_there else "it does not work"


async def _newer(file: Path, chance: random.Random) -> str | None:
    await Store(StoreSettings(f"sqlite:///{file}")).import_trained(range(100))
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"PRAGMA user_version = {chance.randrange(3, 2**31)}")
        connection.execute("ALTER TABLE trained ADD COLUMN what_is_to_come")
    return await _refused(file, chance)


async def _foreign(file: Path, chance: random.Random) -> str | None:
    if chance.random() < 0.5:
        file.write_bytes(chance.randbytes(chance.randrange(1, 10_000)))
    else:
        with closing(sqlite3.connect(file)) as connection, connection:
            connection.execute("CREATE TABLE memories (thought)")
            connection.execute(f"PRAGMA user_version = {chance.randrange(3)}")
    return await _refused(file, chance)


async def _truncated(file: Path, chance: random.Random) -> str | None:
    await Store(StoreSettings(f"sqlite:///{file}")).import_trained(range(1000))
    os.truncate(file, chance.randrange(1, file.stat().st_size))
    return await _refused(file, chance)


async def _refused(file: Path, chance: random.Random) -> str | None:
    before = file.read_bytes()
    try:
        await _any_act(chance)(Store(StoreSettings(f"sqlite:///{file}")))
    except StoreError as error:
        if str(file) not in str(error):
            return f"the error does not name it: {error}"
        return None if file.read_bytes() == before else "it was changed"
    return "it was not refused"


# -- training -------------------------------------------------------------------------------------


class _Trainer:
    """Accepts what it is sent, or does not, and then answers, or does not; honours its keys."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.bodies: dict[str, list[Any]] = {}
        """What was accepted, by Idempotency-Key."""
        self.faults: list[str] = []
        self.over = asyncio.Event()

    async def train(self, request: web.Request) -> web.StreamResponse:
        key = request.headers["Idempotency-Key"]
        body = (await request.json())["training_data"]["samples"]
        answer = self._chance.choice([self._accept, self._accept, self._refuse, *self._failures()])
        is_accepted = answer == self._accept or (
            answer != self._refuse and self._chance.random() < 0.5
        )
        if is_accepted and self.bodies.setdefault(key, body) != body:
            self.faults.append(f"{key} came again with another body")
        return await answer(request)

    def _failures(self) -> list[Callable[[web.Request], Awaitable[web.StreamResponse]]]:
        """Answers that do not say whether it was accepted."""
        return [self._fail, self._say_nothing, self._reset, self._cut, self._garble]

    async def _accept(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"job_id": "job"})

    async def _refuse(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=self._chance.choice([302, 400, 401, 413, 429]))

    async def _fail(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=self._chance.choice([500, 502, 503]))

    async def _say_nothing(self, request: web.Request) -> web.StreamResponse:
        await self.over.wait()
        return web.Response()

    async def _reset(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _cut(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"job_')
        return await self._reset(request)

    async def _garble(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text=self._chance.choice(["", "<html>", "{}", '{"job_id": null}']))


def training(trials: int) -> Finding:
    """Send to a trainer that accepts and then fails, or fails, again and again."""
    chance = random.Random(SEED)
    trainer = _Trainer(chance)
    logger = logging.getLogger("mindscore")
    level = logger.level
    # That some were left out is what is meant to happen here.
    logger.setLevel(logging.ERROR)
    try:
        with _folder() as folder:
            trained, unknown = asyncio.run(_train(trainer, chance, folder, trials))
    finally:
        logger.setLevel(level)
    keys = defaultdict(list)
    for key, samples in trainer.bodies.items():
        for sample in samples:
            keys[sample["context_ids"][0]].append(key)
    twice = [stamp for stamp, every in keys.items() if len(every) > 1]
    lost = keys.keys() - trained - unknown
    failures = [
        *trainer.faults,
        *(f"response {stamp} was trained under {len(keys[stamp])} keys" for stamp in twice),
        *(f"response {stamp} was accepted and is neither marked nor unknown" for stamp in lost),
        *(f"response {stamp} is marked, but was not accepted" for stamp in trained - keys.keys()),
    ]
    return Finding(
        "no response is trained twice as a new one; what may have been accepted is never lost",
        "a trainer that accepts and then times out, resets, answers 5xx or half an answer",
        trials,
        failures,
        f"{len(keys)} responses accepted; at the end {len(trained)} marked, {len(unknown)} unknown",
    )


async def _train(
    trainer: _Trainer, chance: random.Random, folder: Path, trials: int
) -> tuple[set[int], set[int]]:
    """What is marked, and what unknown, after so many attempts; by timestamp."""
    app = web.Application()
    app.router.add_post("/train", trainer.train)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        server = {"base_url": f"http://{host}:{port}", "timeout_s": 0.05, "deadline_s": 0.1}
        store = {"url": f"sqlite:///{folder}/store"}
        settings = {"server": {**server, "max_attempts": 2}, "store": store}
        for trial in range(trials):
            # Of those that came lately: some were sent before, some are new.
            stamps = range(max(0, 2 * trial - 20), 2 * trial + 4)
            at_once = [chance.sample(stamps, 3) for _ in range(chance.choice([1, 1, 1, 3]))]
            await asyncio.gather(*(_send(it, settings, chance) for it in at_once))
        kept = StoreSettings(**store)
        sends = Sends(kept)
        samples = [it for send in await sends.unknown() for it in await sends.samples(send.key)]
        trained = await Store(kept).trained_timestamps()
        return set(trained), {sample.candidate.timestamp_ns for sample in samples}
    finally:
        trainer.over.set()
        await runner.cleanup()


async def _send(stamps: list[int], settings: dict[str, Any], chance: random.Random) -> None:
    candidates = [
        FinetuneCandidate(0, "n", 1.0, "", "", (stamp, 1), (1,), (2,), None, None, stamp)
        for stamp in stamps
    ]
    sending = asyncio.ensure_future(
        send_to_train(candidates, settings, resend_unknown=chance.random() < 0.3)
    )
    await asyncio.wait({sending}, timeout=chance.uniform(0, 0.05) if chance.random() < 0.1 else 30)
    sending.cancel()
    with suppress(TrainError, asyncio.CancelledError):
        await sending


# -- imports --------------------------------------------------------------------------------------


def imports(trials: int) -> Finding:
    """Read files of trained marks and of scores that were cut, overwritten or run together."""
    failures: list[str] = []
    chance = random.Random(SEED)
    refused = 0
    with _folder() as folder:
        file = folder / "import.json"
        for trial in range(trials):
            contents = _contents(chance)
            file.write_bytes(_broken(json.dumps(contents).encode(), chance))
            try:
                found = read_exchange(file)
            except UsageError as error:
                refused += 1
                if str(file) not in str(error):
                    failures.append(f"trial {trial}: the error does not name the file: {error}")
            except Exception as error:
                failures.append(f"trial {trial}: {type(error).__name__}: {error}")
            else:
                if found != contents:
                    failures.append(f"trial {trial}: {contents} was read as {found}")
    return Finding(
        "a broken import is refused, not read as empty or in part",
        "files of marks and scores, cut, overwritten, or run together",
        trials,
        failures,
        f"{refused:,} refused, the others whole",
    )


def _contents(chance: random.Random) -> dict[str, float] | list[int]:
    count = chance.randrange(1, 20)
    if chance.random() < 0.5:
        return [chance.randrange(-(2**63), 2**63) for _ in range(count)]
    keys = ("".join(chance.choices('ak9 é日"\\\n', k=6)) for _ in range(count))
    return {key: chance.uniform(-9, 9) for key in keys}


def _broken(raw: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(raw))
    length = chance.randrange(1, 30)
    over = chance.choice([b"\0", b"\xff"]) * length
    return chance.choice(
        [
            raw[:start],
            raw[start + 1 :],
            raw[:start] + over + raw[start + length :],
            raw[:start] + over + raw[start:],
            raw + raw[start:],
            raw + raw,
            b"\xef\xbb\xbf" + raw,
            raw.decode().encode("utf-16"),
            raw + b" \n",
        ]
    )


ATTACKS: Attacks = {
    killed: 200,
    full_disk: 30,
    read_only: 20,
    many_processes: 3,
    versions: 400,
    training: 400,
    imports: 20_000,
}
