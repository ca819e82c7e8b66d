"""Print how long a million cells take: to write, to read as columns and arrays, and to export.

``python tests/bench/store.py [--cells N] [--url URL]``. Without a URL it is a SQLite file in a
temporary folder. A URL must be of an empty store, which is filled.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from archive_cells import cells

from mindscore.config.settings import StoreSettings
from mindscore.store import Store, as_arrays
from mindscore.store.evidence_files import read_evidence
from mindscore.store.export import ExportFormat, export_evidence

MEMORIES = 40
MIB = 1 << 10


async def measure(what: str, work: Callable[[], Awaitable[int]]) -> None:
    """Do ``work``, and print its seconds, of the clock and of this process, and its rows."""
    began, cpu = time.perf_counter(), time.process_time()
    rows = await work()
    seconds, of_cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    sys.stdout.write(
        f"{what:<22} {rows:>9,} rows {seconds:7.1f} s ({of_cpu:5.1f} s of CPU), "
        f"peak {peak:5.0f} MiB\n"
    )
    sys.stdout.flush()


async def run(store: Store, count: int, folder: Path) -> None:
    """Measure everything once."""

    async def read() -> int:
        return sum([len(batch["key"]) async for batch in store.evidence()])

    async def arrays() -> int:
        few = ("conversation", "key", "node_id", "signed", "noise")
        return len(await as_arrays(store.evidence(columns=few)))

    def export(file_format: ExportFormat) -> Callable[[], Awaitable[int]]:
        return lambda: export_evidence(store, folder / f"evidence.{file_format}", file_format)

    async def merge() -> int:
        count = 0
        for batch in read_evidence(folder / "evidence.parquet"):
            count += await store.add_columns(batch)
        return count

    await measure("write", lambda: store.add_evidence(cells(count, MEMORIES)))
    await measure("read, all columns", read)
    await measure("read, 5 as arrays", arrays)
    await measure("export --format parquet", export("parquet"))
    await measure("export --format csv", export("csv"))
    await measure("export --format jsonl", export("jsonl"))
    await measure("import of the same", merge)


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--url", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.url or f"sqlite:///{folder}/store.sqlite3"
        asyncio.run(run(Store(StoreSettings(url)), arguments.cells, Path(folder)))


if __name__ == "__main__":
    main()
