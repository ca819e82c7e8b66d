"""Print how long ``mindscore advise`` takes on an archive of a million effects.

``python tests/bench/advise.py [--cells N] [--memories N]``: the whole command, in a process of its
own, over a SQLite file in a temporary folder.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from archive_cells import BEGAN, RESPONSES, cells, key_of, text_hash_of

from mindscore.config.settings import StoreSettings
from mindscore.store import ConversationFacts, MemoryText, Store

MIB = 1 << 10


async def fill(store: Store, count: int, memories: int) -> None:
    """Write the evidence, with the memories' texts and the conversations' facts."""
    rows = await store.add_evidence(cells(count, memories))
    texts = [
        MemoryText(key_of(key), text_hash_of(key), f"Fact {key}.", 20, BEGAN, BEGAN)
        for key in range(memories)
    ]
    await store.record_texts(texts)
    facts = [
        ConversationFacts(f"conversation-{it:08d}", f"/talks/{it}.jsonl", "Hello", RESPONSES,
                          memories, 9000, None, None, BEGAN)
        for it in range(rows // (memories * RESPONSES))
    ]  # fmt: skip
    for it in facts:
        await store.record_conversation(it)


def timed(what: str, *arguments: str) -> None:
    """Run the command, and print its seconds, of the clock and of CPU, and its peak of memory."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "mindscore", "advise", *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    of_cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    sys.stdout.write(
        f"advise {what:<12} {seconds:5.1f} s ({of_cpu:4.1f} s of CPU), "
        f"peak {after.ru_maxrss / MIB:4.0f} MiB\n"
    )


def main() -> None:
    """Fill a store, and time the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--memories", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder)}/store.sqlite3"
        settings = StoreSettings(url=url, retention_days=0)
        asyncio.run(fill(Store(settings), given.cells, given.memories))
        for what in ("", "--json"):
            timed(what, *filter(None, [what]), "--set", f"store.url={url}")


if __name__ == "__main__":
    main()
