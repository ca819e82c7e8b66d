"""Cases of a test that runs some of them every time, and all of them by ``make slow``."""

from collections.abc import Mapping
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def mostly_slow(cases: Mapping[str, Any], *every_time: str) -> list[ParameterSet]:
    """Return the cases as parameters by their names; all but those of ``every_time`` are slow.

    A case that is a tuple is several parameters. Raises ``KeyError`` where a name has no case.
    """
    slow = set(cases)
    for name in every_time:
        slow.remove(name)
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else [case]),
            id=name,
            marks=[pytest.mark.slow] if name in slow else [],
        )
        for name, case in cases.items()
    ]
