"""A pass over an archive with Ray: its actors score, its checkpoint resumes, the store gathers."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import platformdirs
from filelock import FileLock, Timeout

from mindscore._util.errors import UsageError
from mindscore._util.files import make_folder
from mindscore.archive.ray_folder import RayFolder
from mindscore.archive.ray_rows import Finding, Waiting, pack, row_id, sealed
from mindscore.archive.ray_worker import ConversationWorker, ServerShare, sent_tables
from mindscore.config.settings import StoreSettings, parse_settings
from mindscore.conversation.conversation import Transcript
from mindscore.store import Store

CLUSTER = "RAY_ADDRESS"
"""The environment variable of Ray's that names a cluster; without it, this machine is one."""

SPARE_CPUS = 2
"""CPUs beside one for each worker: for what reads, writes and looks at the checkpoint."""

RETRIES = 3
"""How often a conversation is tried again whose worker has died."""

OBJECT_STORE_BYTES = 200 << 20
"""Memory for what is on its way between the processes of this machine."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A conversation without findings: the workers that had it died."""

    conversation: str
    source: str
    error: str = (
        f"its worker died {RETRIES + 1} times; Ray's logs, in /tmp/ray/session_latest/logs on that "
        "machine, may say why"
    )


def require_ray() -> Any:
    """Return the module ``ray``, with ``ray.data``.

    Raises:
        UsageError: it is not installed, or is too old.
    """
    try:
        import ray
        import ray.data
        from ray.data.checkpoint import CheckpointConfig  # noqa: F401 - since 2.5x
    except ImportError as error:
        raise UsageError(
            f"--engine ray needs Ray Data, 2.60 or later ({error}); install it with: "
            "pip install 'mindscore[ray]'"
        ) from None
    return ray


class RayEngine:
    """Passes of one command over conversations, on the machines of a Ray cluster.

    ``tables`` are the settings; those of the store are used here, and not by workers.

    Raises:
        UsageError: Ray is not installed, or the folder cannot be used.
    """

    def __init__(self, tables: Mapping[str, Any], command: str) -> None:
        self._ray = require_ray()
        self._tables, self._command = tables, command
        self._settings = parse_settings(tables)
        self._store = Store(self._settings.store)
        name = pass_name(self._settings.store, command)
        own = platformdirs.user_data_path("mindscore") / "ray"
        self._lock = own / f"{name}.lock"
        self._folder = RayFolder(f"{self._settings.ray.folder or own}/{name}")

    def run(
        self,
        conversations: Iterable[tuple[Transcript, str]],
        hear: Callable[[Finding | Lost], None],
    ) -> None:
        """Score conversations, each with the fingerprint of its pass; keep what is found.

        ``hear`` is called with each of them at the end. What an earlier command had found before it
        was ended is kept, too, and not measured again.

        Raises:
            UsageError: the cluster is too small or another command is at it, or the folder cannot
                be used.
            StoreError: the store cannot be written; the same command goes on.
        """
        with self._alone(), self._connected() as workers:
            key = secrets.token_bytes(32)
            waiting = {
                it.id: (it.conversation, it.source)
                for it in self._folder.queue(self._rows(conversations, key))
            }
            if waiting:
                self._score(workers, key)
            asyncio.run(self._gather(waiting, hear))
            self._folder.clear()

    def _rows(
        self, conversations: Iterable[tuple[Transcript, str]], key: bytes
    ) -> Iterator[Waiting]:
        failed, seen = self._folder.begin(), set[str]()
        for transcript, fingerprint in conversations:
            attempts = failed[row_id(transcript.id, fingerprint, 0)]
            row = row_id(transcript.id, fingerprint, attempts)
            # Two files may hold the same conversation.
            if row not in seen:
                seen.add(row)
                packed, source = pack(transcript), str(transcript.file)
                seal = sealed(key, row, packed)
                yield Waiting(row, transcript.id, source, fingerprint, packed, seal)

    def _score(self, workers: int, key: bytes) -> None:
        """Run Ray's pipeline: one conversation a block, so that each is done or not."""
        from ray.data.checkpoint import CheckpointConfig

        data = self._ray.data
        context = data.DataContext.get_current().copy()
        context.checkpoint_config = CheckpointConfig(
            "id", self._folder.checkpoint, delete_checkpoint_on_success=False
        )
        context.max_errored_blocks = -1
        context.enable_progress_bars = sys.stderr.isatty()
        urls = self._settings.server.base_urls
        share = self._ray.remote(num_cpus=0)(ServerShare).remote(urls) if urls else None
        arguments = (sent_tables(self._tables), self._command, key, share)
        with data.DataContext.current(context):
            rows = data.read_parquet(self._folder.waiting).repartition(target_num_rows_per_block=1)
            rows.map_batches(
                ConversationWorker,
                fn_constructor_args=arguments,
                batch_size=1,
                batch_format="pyarrow",
                # A conversation must not wait behind another while a worker is idle.
                compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
                num_cpus=1,
                num_gpus=1 if self._on_gpus() else 0,
                max_restarts=-1,
                max_task_retries=RETRIES,
            ).write_parquet(self._folder.found)

    async def _gather(
        self, waiting: Mapping[str, tuple[str, str]], hear: Callable[[Finding | Lost], None]
    ) -> None:
        """Move what was found to the store: doing so twice changes nothing."""
        lost, current = dict(waiting), {conversation for conversation, _ in waiting.values()}
        for found in self._folder.findings():
            if lost.pop(found.id, None) is not None:
                await keep(self._store, found)
                hear(found)
            # Of an earlier command, and it has not been measured anew.
            elif found.done.conversation not in current:
                await keep(self._store, found)
        for conversation, source in lost.values():
            hear(Lost(conversation, source))

    def _on_gpus(self) -> bool:
        server = self._settings.server
        may = server.scorer == "local" and server.device.startswith(("auto", "cuda"))
        return may and bool(self._ray.cluster_resources().get("GPU"))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        make_folder(self._lock.parent)
        try:
            with FileLock(self._lock, timeout=0, mode=0o600):
                yield
        except Timeout:
            raise UsageError(
                f"another command is at the same pass with Ray ({self._lock} is locked)"
            ) from None

    @contextmanager
    def _connected(self) -> Iterator[int]:
        """Connect to the cluster, or start one on this machine; yield the number of workers."""
        asked = self._settings.ray.workers or len(self._settings.server.base_urls)
        # Ray's own figures about those who use it go nowhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        more: dict[str, Any] = {}
        if CLUSTER not in os.environ:
            more = {
                "address": "local",
                "num_cpus": (asked or 1) + SPARE_CPUS,
                "object_store_memory": OBJECT_STORE_BYTES,
                "include_dashboard": False,
            }
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            self._ray.init(**quiet, **more)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(f"Ray cannot be reached or started: {error}") from None
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setLevel(logging.CRITICAL)
        try:
            there = Counter(self._ray.cluster_resources())
            on_gpus = self._on_gpus()
            workers = asked or (int(there["GPU"]) if on_gpus else 1)
            if there["CPU"] < workers + SPARE_CPUS or (on_gpus and there["GPU"] < workers):
                raise UsageError(
                    f"ray.workers: {workers} need {workers + SPARE_CPUS} CPUs"
                    + f" and {workers} GPUs" * on_gpus
                    + f"; the cluster has {there['CPU']:g} and {there['GPU']:g}"
                )
            yield workers
        finally:
            self._ray.shutdown()


def pass_name(store: StoreSettings, command: str) -> str:
    """Return the name of a folder for passes of ``command`` that end in one store and namespace."""
    return hashlib.sha256(repr((store.url, store.namespace, command)).encode()).hexdigest()[:24]


async def keep(store: Store, found: Finding) -> None:
    """Keep what was found in a conversation; last, that it is done."""
    await store.add_evidence(found.evidence)
    await store.record_texts(found.texts)
    if found.facts is not None:
        await store.record_conversation(found.facts)
    for candidate in found.decoded_candidates:
        model, conversation = found.done.model, found.done.conversation
        await store.record_candidate(candidate, model, conversation=conversation)
    await store.record_pass(found.done)
