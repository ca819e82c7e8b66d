"""A pass over an archive with Ray: its actors score, its checkpoint resumes, the store gathers."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import replace

import platformdirs
from filelock import FileLock, Timeout

from mindhooks import in_thread
from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.files import make_folder
from mindscore.archive.archive_pass import ArchivePass
from mindscore.archive.ray_engine import RETRIES, connected, score_with_ray
from mindscore.archive.ray_folder import FILE_ROWS, RayFolder
from mindscore.archive.ray_rows import Finding, Waiting, pack, row_id, sealed
from mindscore.archive.ray_worker import Orders, sent_tables
from mindscore.archive.survey import Found, Survey, chosen_transcripts
from mindscore.config.settings import StoreSettings
from mindscore.store import Store

LOST = (
    f"its worker died {RETRIES + 1} times: Ray's logs on that machine, in "
    "its folder session_latest/logs, may say why"
)
"""The error of a conversation of which there is no finding."""


class RayPass(ArchivePass):
    """Runs one command over the chosen conversations of an archive, on the machines of a cluster.

    ``heard`` is called with the findings of each at the end.
    """

    async def run(self, survey: Survey, chosen: Sequence[Found]) -> None:
        """Score what is not scored yet; keep also what an interrupted command had found.

        Raises:
            UsageError: Ray is not installed, the cluster is too small, another command is at the
                same pass, or the folder cannot be used.
            ConfigError: a scorer cannot be built because of the configuration.
            ScorerError: no server answers.
            StoreError: the store cannot be read or written; the same command goes on.
        """
        async with AsyncExitStack() as stack:
            servers = await self._open(stack)
            todo = await self._todo(servers, chosen)
        orders = Orders(
            sent_tables(self._tables),
            self._command,
            self._digest,
            secrets.token_bytes(32),
            self._measure_again,
            {it.taker.place: it.taker.conditions for it in servers},
            self._max_tokens,
        )
        name = pass_name(self._settings.store, self._command)
        own = platformdirs.user_data_path("mindscore") / "ray"
        make_folder(own)
        with alone(f"{own / name}.lock"):
            folder = RayFolder(f"{self._settings.ray.folder or own}/{name}")
            rows = self._rows(folder, survey, todo, servers[0].server.model, orders.key)
            waiting = await self._write(folder, rows)
            if waiting:
                for remark in await in_thread(self._score_all, orders, folder):
                    self.state.remarks[remark] = None
            await self._gather(folder, survey, waiting)
            folder.clear()
        self._progress(self.state)

    def _score_all(self, orders: Orders, folder: RayFolder) -> list[str]:
        with connected(self._settings) as workers:
            return score_with_ray(orders, folder, workers)

    async def _write(
        self, folder: RayFolder, rows: AsyncIterator[tuple[Found, Waiting]]
    ) -> dict[str, Found]:
        """Write rows, a file for every few; return their conversations by the ids of the rows."""
        waiting, batch = dict[str, Found](), list[Waiting]()
        async for found, row in rows:
            waiting[row.id] = found
            batch.append(row)
            if len(batch) == FILE_ROWS:
                await in_thread(folder.write, batch)
                batch = []
        if batch:
            await in_thread(folder.write, batch)
        return waiting

    async def _rows(
        self, folder: RayFolder, survey: Survey, todo: Sequence[Found], model: str, key: bytes
    ) -> AsyncIterator[tuple[Found, Waiting]]:
        """Yield a row for each conversation."""
        failed, begun = await in_thread(folder.begin), self._begun()
        transcripts = chosen_transcripts(self._reader, survey.files, todo)
        while (read := await in_thread(next, transcripts, None)) is not None:
            found, transcript = read
            source = str(survey.files[found.file].path)
            if isinstance(transcript, TranscriptError):
                self._fail(found, source, str(transcript))
                continue
            work = await self._work(found, transcript, model, rows=True)
            work = replace(work, prefers=begun.get(found.id, ""))
            row = row_id(found.id, work.content, self._digest)
            if failed[row]:
                # To Ray, what failed is done: another attempt is another row.
                row = f"{row}~{failed[row]}"
            try:
                packed = await in_thread(pack, work)
            except TranscriptError as error:
                self._fail(found, source, str(error))
                continue
            yield found, Waiting(row, found.id, source, packed, sealed(key, row, packed))

    async def _gather(self, folder: RayFolder, survey: Survey, waiting: dict[str, Found]) -> None:
        """Move what was found to the store: doing so twice changes nothing."""
        lost, current = dict(waiting), {it.id for it in waiting.values()}
        for it in folder.findings():
            found = lost.pop(it.id, None)
            # Of an earlier command, unless the conversation was measured anew.
            if found is not None or it.done.conversation not in current:
                await keep(self._store, it)
            if found is not None:
                for attempt in it.given_up:
                    self.state.spend(attempt)
                self._count(found, it.source, it.error, it.done if it.json else None)
                if it.json:
                    self.state.cells.update(row.mode for row in it.evidence)
                    self._heard(it)
        for found in lost.values():
            self._fail(found, str(survey.files[found.file].path), LOST)


def pass_name(store: StoreSettings, command: str) -> str:
    """Return the name of a folder for passes of ``command`` that end in one store and namespace."""
    return hashlib.sha256(repr((store.url, store.namespace, command)).encode()).hexdigest()[:24]


@contextmanager
def alone(lock: str) -> Iterator[None]:
    """Hold the file ``lock``.

    Raises:
        UsageError: another command holds it.
    """
    try:
        with FileLock(lock, timeout=0, mode=0o600, thread_local=False):
            yield
    except Timeout:
        raise UsageError(f"another command is at the same pass with Ray: it holds {lock}") from None


async def keep(store: Store, found: Finding) -> None:
    """Keep what was found in a conversation; last, that it is done."""
    await store.add_evidence(found.evidence)
    await store.record_texts(found.texts)
    await store.add_scores(found.scores)
    await store.add_rows(
        found.decoded_rows(), found.done.model, found.done.conversation, found.done.done_at
    )
    if found.facts is not None:
        await store.record_conversation(found.facts)
    model, conversation = found.done.model, found.done.conversation
    await store.record_notes(model, conversation, found.decoded_notes(), found.done.done_at)
    if found.candidates:
        trained = await store.trained()
        for it in found.decoded_candidates():
            # The worker, which has no store, cannot know.
            if not trained.covers(it.timestamp_ns, it.continuation_ids):
                await store.record_candidate(it, model, conversation=conversation)
    if model:
        await store.record_pass(found.done)
