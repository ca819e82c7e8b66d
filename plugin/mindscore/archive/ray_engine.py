"""Ray: its cluster, and its pipeline from conversations that wait to findings."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from mindscore._util.errors import UsageError
from mindscore.archive.ray_folder import RayFolder
from mindscore.archive.ray_share import PassShare, RemoteShare
from mindscore.archive.ray_worker import ConversationWorker, Orders, actor_name
from mindscore.config.settings import ServerSettings, Settings, parse_settings

CLUSTER = "RAY_ADDRESS"
"""The environment variable of Ray's that names a cluster; without it, this machine is one."""

SPARE_CPUS = 2
"""CPUs beside one for each worker: for what reads, writes and looks at the checkpoint."""

RETRIES = 3
"""How often a conversation is tried again whose worker has died."""

STDERR = 2
"""The descriptor of standard error."""

OBJECT_STORE_BYTES = 200 << 20
"""Memory for what is on its way between the processes of this machine."""


def require_ray() -> Any:
    """Return the module ``ray``, with ``ray.data``.

    Raises:
        UsageError: it is not installed, or is too old.
    """
    try:
        import ray
        import ray.data
        import ray.data.checkpoint
    except ImportError as error:
        raise UsageError(
            f"--engine ray needs Ray Data, 2.60 or later ({error}); install it with: "
            "pip install 'mindscore[ray]'"
        ) from None
    return ray


@contextmanager
def connected(settings: Settings) -> Iterator[int]:
    """Connect to the cluster, or start one on this machine; yield the number of workers.

    Raises:
        UsageError: Ray is not installed or does not start, or the cluster is too small.
    """
    ray = require_ray()
    asked = settings.ray.workers or len(settings.server.base_urls)
    # Else Ray would tell its makers of this use.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    own: dict[str, Any] = {
        "address": "local",
        "num_cpus": (asked or 1) + SPARE_CPUS,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    quieted = ExitStack()
    quieted.enter_context(_native_messages_dropped())
    quieted.enter_context(warnings.catch_warnings())
    # Ray warns of its own next versions, and of few conversations.
    warnings.simplefilter("ignore")
    try:
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        ray.init(**quiet, **({} if CLUSTER in os.environ else own))
    except (ConnectionError, RuntimeError, ValueError) as error:
        quieted.close()
        raise UsageError(f"Ray cannot be reached or started: {error}") from None
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            # What fails is said at the end, and is in Ray's own files at length.
            handler.setLevel(logging.CRITICAL)
    try:
        there = Counter(ray.cluster_resources())
        on_gpus = _on_gpus(settings.server, there)
        workers = asked or (int(there["GPU"]) if on_gpus else 1)
        if there["CPU"] < workers + SPARE_CPUS or (on_gpus and there["GPU"] < workers):
            needed = f"{workers + SPARE_CPUS} CPUs" + f" and {workers} GPUs" * on_gpus
            found = f"{there['CPU']:g} CPUs and {there['GPU']:g} GPUs"
            raise UsageError(f"ray.workers: {workers} need {needed}; the cluster has {found}")
        yield workers
    finally:
        ray.shutdown()
        quieted.close()


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """Drop what Ray's native code writes to standard error: it is in Ray's own files, too.

    Python's ``sys.stderr``, and with it progress, goes where it went.
    """
    usual = sys.stderr
    try:
        is_real = usual.fileno() == STDERR
    except (AttributeError, OSError):
        is_real = False
    if not is_real:
        yield
        return
    usual.flush()
    kept = os.dup(STDERR)
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device
        os.dup2(nothing.fileno(), STDERR)
    encoding, errors = usual.encoding, usual.errors
    with open(kept, "w", encoding=encoding, errors=errors, buffering=1) as stream:  # noqa: PTH123
        sys.stderr = stream
        try:
            yield
        finally:
            sys.stderr = usual
            stream.flush()
            os.dup2(kept, STDERR)


def _on_gpus(server: ServerSettings, there: Mapping[str, float]) -> bool:
    may = server.scorer == "local" and server.device.startswith(("auto", "cuda"))
    return may and bool(there.get("GPU"))


def score_with_ray(orders: Orders, folder: RayFolder, workers: int) -> list[str]:
    """Score the conversations that wait in ``folder``, but for those of Ray's checkpoint.

    Return remarks on servers that went down.

    One conversation is a block, so that each is done or not. One whose worker dies is tried again
    ``RETRIES`` times, and then left out.
    """
    ray = require_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    data = ray.data
    context = data.DataContext.get_current().copy()
    context.checkpoint_config = data.checkpoint.CheckpointConfig(
        "id", folder.checkpoint, delete_checkpoint_on_success=False
    )
    context.max_errored_blocks = -1
    context.enable_progress_bars = sys.stderr.isatty()
    # On the command's own machine, which the pass cannot outlive anyway.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(PassShare)
    share = RemoteShare(actor.remote(orders.places, orders.max_tokens))
    server = parse_settings(orders.tables).server
    with data.DataContext.current(context):
        rows = data.read_parquet(folder.waiting).repartition(target_num_rows_per_block=1)
        rows.map_batches(
            ConversationWorker,
            fn_constructor_args=(orders, share, actor_name),
            batch_size=1,
            batch_format="pyarrow",
            # One waits at each worker: Ray takes 0.2 s to send another. More would wait behind a
            # long conversation while another worker is idle.
            compute=data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=1 if _on_gpus(server, ray.cluster_resources()) else 0,
            max_restarts=-1,
            max_task_retries=RETRIES,
        ).write_parquet(folder.found)
    try:
        return share.remarks()
    except ray.exceptions.RayActorError:
        # Its process has been killed: each conversation since has failed, and says so.
        return []
