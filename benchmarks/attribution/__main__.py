"""Measure how well methods find the memories that an answer rests on, and what they cost.

FOLDER has the sets, as their sources publish them: hotpotqa*.json (HotpotQA, CC BY-SA 4.0),
musique*.json (MuSiQue, CC BY 4.0), locomo*.zip (LoCoMo, CC BY-NC 4.0: research use) and
causal_locomo*.jsonl (Causal-LoCoMo, https://github.com/Saksham4796/causal-memory-intervention).
They are read, and not copied. Every other question is kept back: what is chosen on the first half
is to be reported on the other.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.attribution.cases import SETS, read_cases, take
from benchmarks.attribution.methods import METHODS, USUAL
from benchmarks.attribution.results import read_results
from benchmarks.attribution.run import Plan, run
from benchmarks.attribution.table import PUBLISHED, lines
from mindhooks import MindhooksError


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("benchmarks.attribution", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--sets", type=_names([*SETS]), default=list(SETS), metavar="A,B")
    parser.add_argument("--methods", type=_names([*METHODS]), default=USUAL, metavar="A,B")
    parser.add_argument("--questions", type=int, default=8, help="of each set, or a few more")
    parser.add_argument("--held-out", action="store_true", help="the questions kept back")
    parser.add_argument(
        "--words", type=int, default=0, help="leave out distractors beyond so many words; 0: none"
    )
    parser.add_argument(
        "--random", type=int, default=16, help="ablations that judge the methods' sums (LDS)"
    )
    parser.add_argument(
        "--response", choices=("gold", "model"), default="gold", help="whose answers are scored"
    )
    parser.add_argument("--scorer", default="local")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the values, and go on")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    given = _parser().parse_args(arguments)
    setup = {
        "scorer": given.scorer,
        "model": given.model,
        "dtype": given.dtype,
        "response": given.response,
        "words": str(given.words),
    }
    try:
        results = read_results(given.json, setup)
        cases = [
            case
            for name in given.sets
            for case in take(
                read_cases(given.folder, name, given.words),
                given.questions,
                held_out=given.held_out,
            )
        ]
        server = {name: getattr(given, name) for name in ("scorer", "model", "device", "dtype")}
        plan = Plan(given.methods, given.response, given.random)
        asyncio.run(run(cases, server, plan, results, given.json, _progress))
    except (MindhooksError, OSError, ValueError) as error:
        sys.stderr.write(f"benchmarks.attribution: {error}\n")
        return 1
    for line in lines(results, given.methods, held_out=given.held_out):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{PUBLISHED}\n")
    return 0


def _progress(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _names(known: Iterable[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        found = text.split(",")
        unknown = [it for it in found if it not in known]
        if unknown:
            raise argparse.ArgumentTypeError(
                f"{', '.join(unknown)}: expected some of {', '.join(known)}"
            )
        return found

    return names


if __name__ == "__main__":
    sys.exit(main())
