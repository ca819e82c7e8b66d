"""The training process, ``python -m mindscore.training.lora FOLDER``.

It trains by ``FOLDER/job.json`` and writes ``FOLDER/adapter``. It prints a line of JSON an epoch,
and ends when its standard input does.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

import msgspec

from mindscore._util.aio import share_one_arena
from mindscore._util.errors import format_error
from mindscore._util.text import LINE, one_line
from mindscore.training.lora.job import ADAPTER, JOB, Failure, Job, Measures, Progress


def main(folder: Path) -> int:
    """Train, and return the exit status."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    share_one_arena()
    # What libraries print, those in C too, goes to standard error, not between the lines.
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(what: Progress | Measures | Failure) -> None:
        lines.write(msgspec.json.encode(what).decode() + "\n")
        lines.flush()

    try:
        from mindscore.training.lora.training import Training

        job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
        _stand_back(job.niceness)
        training = Training(job)
        tell(training.measured(lambda: training.run(tell)))
        training.save(folder / ADAPTER)
    # A model may fail with any exception.
    except Exception as error:
        tell(Failure(one_line(format_error(error), LINE)))
        return 1
    return 0


def _end_with_parent() -> None:
    # Nothing is ever written to it: it ends when the parent does, however that came to be.
    # Not by sys.stdin, whose lock would be in the way of this process's own end.
    os.read(0, 1)
    os._exit(1)


def _stand_back(niceness: int) -> None:
    """Give other processes precedence: for cores, and when memory runs out."""
    if hasattr(os, "nice"):
        os.nice(niceness)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
