"""However a run ends, its end is reported once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mindhooks import MindhooksError
from mindscore._util.errors import format_error

CANCELLED = "cancelled"


@contextmanager
def report_on_exit(report: Callable[[str | None], None]) -> Iterator[None]:
    """Run the body, then ``report`` what failed in it, in words, or ``None``.

    An error that is meant for the operator ends here; any other goes on to the task handle, which
    logs it.
    """
    error: str | None = None
    try:
        yield
    except asyncio.CancelledError:
        error = CANCELLED
        raise
    except MindhooksError as failure:
        error = format_error(failure)
    except BaseException as failure:
        error = format_error(failure)
        raise
    finally:
        report(error)
