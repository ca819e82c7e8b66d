"""``make faults``: attacks what plugin/docs/security.md promises, and prints a table.

python -m tests.faults [--share 0.1] [NAME ...]     from the repository's root; all, or those named
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time

MODULES = ("host", "wire", "keeping", "archive", "input", "spans", "secrets", "soak")
"""Modules beside this one; each has ``ATTACKS``."""


def main() -> int:
    """Run the attacks; 1 where a promise was broken."""
    options = argparse.ArgumentParser(description=__doc__, usage="python -m tests.faults [NAME]")
    options.add_argument("--share", type=float, default=1.0, help="of the trials")
    options.add_argument("names", nargs="*", metavar="NAME")
    given = options.parse_args()
    attacks = [
        (attack, trials)
        for module in MODULES
        for attack, trials in importlib.import_module(f".{module}", __package__).ATTACKS.items()
        if not given.names or attack.__name__ in given.names or module in given.names
    ]
    print("| promise | attacked by | trials | failures | measured |\n|---|---|--:|--:|---|")
    broken: list[str] = []
    for attack, trials in attacks:
        started = time.monotonic()
        found = attack(max(1, math.ceil(trials * given.share)))
        broken += found.failures
        cells = (
            found.promise,
            found.attack,
            f"{found.trials:,}",
            len(found.failures),
            found.figure,
        )
        print("|", " | ".join(map(str, cells)), "|", flush=True)
        print(f"{attack.__name__}: {time.monotonic() - started:.0f} s", file=sys.stderr)
        for failure in found.failures[:10]:
            print(f"  {failure}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
