"""``mindscore serve``: the local model behind HTTP."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindhooks import Scorer, ScorerCapabilities
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore._util.text import printable
from mindscore.cli.interruption import DONE, INTERRUPTED, leave, leave_in
from mindscore.config.file import load_configuration, read_api_key
from mindscore.config.settings import ServerSettings
from mindscore.http.secrets import is_loopback

if TYPE_CHECKING:
    from mindscore.serve.trainer import Trainer

GRACE_S = 5.0


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """What was asked for on the command line."""

    host: str
    port: int
    queue: int
    train: bool
    config_file: Path | None
    assignments: Sequence[str]


def run_serve(request: ServeRequest) -> int:
    """Serve until told to end; SIGTERM is a good end, Ctrl-C an interruption."""
    from mindscore.serve.app import make_app, serve

    configuration = load_configuration(request.config_file, request.assignments)
    settings = configuration.settings.server
    key = read_api_key(settings)
    if key is None and not is_loopback(request.host):
        raise UsageError(
            f"--host {request.host} can be reached from elsewhere: set a key in "
            f"${settings.api_key_env} or server.api_key_file, or keep to 127.0.0.1"
        )
    share_one_arena()
    scorer = _local_scorer(settings, dict(configuration.tables.get("server", {})))
    trainer = _trainer(scorer) if request.train else None
    app = make_app(scorer, key=key, queue_limit=request.queue, trainer=trainer)

    def ready(base_url: str) -> None:
        adapter = ScorerCapabilities.of(scorer).adapter
        what = f"{scorer.model}, adapter {printable(adapter)}" if adapter else scorer.model
        sys.stdout.write(f'serving {what}: server.base_url = "{base_url}"\n')
        sys.stdout.flush()

    with _Deadline() as deadline:
        serving = serve(scorer, app, request.host, request.port, ready=ready, ending=deadline.start)
        asyncio.run(serving)
    return DONE


class _Deadline:
    """Ends the process some time after ``start``.

    A forward of a large model cannot be stopped on its way, and nobody is left to answer.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __enter__(self) -> _Deadline:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def start(self, terminated: bool) -> None:
        """From now on the process has ``GRACE_S``."""
        ending = (None, DONE) if terminated else ("interrupted", INTERRUPTED)
        self._timer = leave_in(GRACE_S, lambda: leave(*ending))


def _trainer(scorer: Scorer) -> Trainer:
    import platformdirs

    from mindscore.scorers.local.scorer import LocalScorer
    from mindscore.serve.trainer import Trainer

    if not isinstance(scorer, LocalScorer):
        raise UsageError("--train is for a model with weights: set server.scorer to 'local'")
    return Trainer(scorer, platformdirs.user_data_path("mindscore") / "adapters")


def _local_scorer(settings: ServerSettings, table: dict[str, Any]) -> Scorer:
    if settings.scorer == "local":
        from mindscore.scorers.local.scorer import LocalScorer

        return LocalScorer(table)
    if settings.scorer == "toy":
        from mindscore.scorers.toy import ToyScorer

        return ToyScorer(table)
    raise UsageError(
        f"serve is for models in this process: server.scorer is {settings.scorer!r}, "
        "expected 'local' or 'toy'"
    )
