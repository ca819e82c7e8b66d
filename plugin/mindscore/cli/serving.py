"""``mindscore serve`` and ``mindscore review``: serve HTTP until told to end."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

from mindhooks import Scorer, ScorerCapabilities
from mindscore._util.aio import share_one_arena
from mindscore._util.errors import UsageError
from mindscore._util.text import printable
from mindscore.cli.interruption import DONE, INTERRUPTED, Deadline, run_until_interrupted
from mindscore.cli.options import ReviewOptions, ServeOptions
from mindscore.config.file import read_api_key
from mindscore.config.settings import ServerSettings, TrainSettings
from mindscore.conversation.conversation import Transcript
from mindscore.display.screen import own_output

if TYPE_CHECKING:
    from mindscore.serve.trainer import Trainer


def run_serve(options: ServeOptions) -> int:
    """Serve until told to end: SIGTERM is a good end, Ctrl-C an interruption."""
    from mindscore.http.access import require_key
    from mindscore.serve.app import make_app, serve

    configuration = options.load()
    settings = configuration.settings.server
    key = read_api_key(settings)
    hint = f"set a key in ${settings.api_key_env} or server.api_key_file"
    require_key(key, options.host, hint)
    share_one_arena()
    scorer = _local_scorer(settings, dict(configuration.tables.get("server", {})))
    trainer = _trainer(scorer, configuration.settings.train) if options.train else None
    app = make_app(scorer, key=key, queue_limit=options.queue, trainer=trainer)

    def ready(base_url: str) -> None:
        adapter = ScorerCapabilities.of(scorer).adapter
        what = f"{scorer.model}, adapter {printable(str(adapter))}" if adapter else scorer.model
        sys.stdout.write(f'serving {what}: server.base_url = "{base_url}"\n')
        sys.stdout.flush()

    def ending(terminated: bool) -> None:
        if terminated:
            deadline.start()
        else:
            deadline.start("interrupted", INTERRUPTED)

    with Deadline() as deadline:
        asyncio.run(serve(scorer, app, options.host, options.port, ready=ready, ending=ending))
    return DONE


def _trainer(scorer: Scorer, settings: TrainSettings) -> Trainer:
    import platformdirs

    from mindscore.scorers.local.scorer import LocalScorer
    from mindscore.serve.trainer import Trainer

    if not isinstance(scorer, LocalScorer):
        raise UsageError("--train is for a model with weights: set server.scorer to 'local'")
    folder = platformdirs.user_data_path("mindscore") / "adapters"
    return Trainer(scorer, folder, guard=settings.guard)


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


def run_review(options: ReviewOptions) -> int:
    """Serve the page until told to end: SIGTERM is a good end, Ctrl-C an interruption."""
    from mindscore.review.app import serve_review
    from mindscore.review.runs import Runs

    configuration = options.load()
    transcript = _transcript(options)
    share_one_arena()
    out = sys.stdout

    def ready(address: str) -> None:
        out.write(f"open {address}\n")
        out.flush()

    async def serve() -> None:
        runs = Runs(transcript, configuration.tables)
        await serve_review(configuration.settings, runs, options.port, ready, deadline.start)

    with own_output(), Deadline() as deadline:
        run_until_interrupted(serve, lambda: "")
    return DONE


def _transcript(options: ReviewOptions) -> Transcript | None:
    if options.transcript is not None:
        return options.read(options.transcript)
    given = {
        "--format": options.format,
        "--memories": options.memories or None,
        "--memories-anywhere": options.memories_anywhere or None,
        "--select": options.select,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(f"{name} goes with a TRANSCRIPT")
    return None
