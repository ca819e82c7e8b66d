"""``mindscore collect``: take the turns of agents elsewhere, and score them when they are idle."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore.cli.collect_options import CollectOptions
from mindscore.cli.interruption import DONE, FAILED, INTERRUPTED, Deadline, run_until_interrupted
from mindscore.cli.options import check_memories

if TYPE_CHECKING:
    from mindscore.collect.queue import CollectedTurns
    from mindscore.collect.scoring import TurnScoring


def run_collect(options: CollectOptions) -> int:
    """Collect until told to end: SIGTERM is a good end, Ctrl-C an interruption."""
    try:
        from mindscore.collect.app import collect, make_app, only_collector, queue_file
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("google", "opentelemetry"):
            raise
        raise UsageError(
            "collect needs OpenTelemetry's types: pip install 'mindscore[collect]'"
        ) from None
    from mindscore.collect.endpoints import CollectEndpoints
    from mindscore.collect.queue import CollectedTurns
    from mindscore.collect.scoring import Options, TurnScoring
    from mindscore.config.file import read_key_file
    from mindscore.http.access import require_key
    from mindscore.readers.memories import read_memories

    check_memories(options.memories, options.memories_anywhere)
    configuration = options.load()
    key = None if options.key_file is None else read_key_file(options.key_file, "--key-file")
    require_key(key, options.host, "set a key with --key-file FILE")
    memories = read_memories(*options.memories) if options.memories else {}
    share_one_arena()
    file = queue_file(configuration.settings.store.namespace)
    chosen = Options(memories, options.memories_anywhere, options.idle_s)

    def open_scoring(turns: CollectedTurns) -> TurnScoring:
        return TurnScoring(turns, configuration.tables, chosen, _say)

    def ready(address: str) -> None:
        _say(f"collecting at {address}/v1/traces and {address}/v1/turns; {_when(options.idle_s)}")

    with only_collector(file):
        turns = CollectedTurns(file, options.queue_mb * 2**20)
        turns.prepare()
        if options.once:
            return (
                DONE if run_until_interrupted(lambda: _once(open_scoring(turns)), str) else FAILED
            )
        endpoints = CollectEndpoints(
            turns, idle_s=options.idle_s, memory_attribute=options.memory_attribute
        )

        def ending(terminated: bool) -> None:
            if terminated:
                deadline.start()
            else:
                deadline.start("interrupted", INTERRUPTED)

        async def work() -> None:
            await collect(
                open_scoring(turns),
                make_app(endpoints, key),
                options.host,
                options.port,
                ready=ready,
                ending=ending,
            )

        with Deadline() as deadline:
            asyncio.run(work())
        return DONE


async def _once(scoring: TurnScoring) -> bool:
    try:
        return await scoring.run_once()
    finally:
        await scoring.aclose()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _when(idle_s: float) -> str:
    return f"a conversation is scored once it is idle for {idle_s:g} s"
