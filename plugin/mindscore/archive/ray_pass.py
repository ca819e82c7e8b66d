"""A pass over an archive with Ray: its actors score, its checkpoint resumes, the store gathers."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager

import platformdirs
from filelock import FileLock, Timeout

from mindhooks import in_thread
from mindscore._util.errors import TranscriptError, UsageError
from mindscore._util.files import make_folder
from mindscore.archive.archive_pass import ArchivePass, Failure, work_of
from mindscore.archive.pass_record import transcript_digest
from mindscore.archive.ray_engine import RETRIES, connected, score_with_ray
from mindscore.archive.ray_folder import RayFolder
from mindscore.archive.ray_rows import Finding, Waiting, pack, row_id, sealed
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
            todo = await self._todo(await self._open(stack), chosen)
        name = pass_name(self._settings.store, self._command)
        own = platformdirs.user_data_path("mindscore") / "ray"
        make_folder(own)
        with alone(f"{own / name}.lock"):
            folder = RayFolder(f"{self._settings.ray.folder or own}/{name}")
            waiting = await in_thread(self._score_all, folder, survey, todo)
            await self._gather(folder, survey, waiting)
            folder.clear()
        self._progress(self.state)

    def _score_all(
        self, folder: RayFolder, survey: Survey, todo: Sequence[Found]
    ) -> dict[str, Found]:
        """Score with Ray; return what was to be scored, by the ids of the rows."""
        key, waiting = secrets.token_bytes(32), dict[str, Found]()
        folder.write(self._rows(folder, survey, todo, key, waiting))
        if waiting:
            with connected(self._settings) as workers:
                score_with_ray(
                    self._settings,
                    self._tables,
                    self._command,
                    self._digest,
                    folder,
                    key,
                    workers,
                )
        return waiting

    def _rows(
        self,
        folder: RayFolder,
        survey: Survey,
        todo: Sequence[Found],
        key: bytes,
        waiting: dict[str, Found],
    ) -> Iterator[Waiting]:
        """Yield a row for each conversation, and note it in ``waiting``."""
        failed = folder.begin()
        for found, transcript in chosen_transcripts(self._reader, survey.files, todo):
            source = str(survey.files[found.file].path)
            try:
                if isinstance(transcript, TranscriptError):
                    raise transcript
                packed = pack(transcript)
            except TranscriptError as error:
                self.state.failures.append(Failure(found.id, source, str(error)))
                continue
            # Of what was read now: the file may have changed since the survey.
            content = transcript_digest(transcript).hex()
            row = row_id(found.id, content, self._digest)
            if failed[row]:
                # To Ray, what failed is done: another attempt is another row.
                row = f"{row}~{failed[row]}"
            waiting[row], keys = found, list(self._reader.keys(transcript))
            seal = sealed(key, row, packed)
            yield Waiting(row, found.id, source, content, keys, packed, seal)

    async def _gather(self, folder: RayFolder, survey: Survey, waiting: dict[str, Found]) -> None:
        """Move what was found to the store: doing so twice changes nothing."""
        lost, current = dict(waiting), {it.id for it in waiting.values()}
        for it in folder.findings():
            found = lost.pop(it.id, None)
            # Of an earlier command, unless the conversation was measured anew.
            if found is not None or it.done.conversation not in current:
                await keep(self._store, it)
            if found is not None:
                self._end_row(found, it)
        for found in lost.values():
            source = str(survey.files[found.file].path)
            self.state.failures.append(Failure(found.id, source, LOST))

    def _end_row(self, found: Found, finding: Finding) -> None:
        state = self.state
        state.spend(finding.done)
        state.work += work_of(found)
        if finding.error is not None:
            state.failures.append(Failure(found.id, finding.source, finding.error))
        else:
            state.scored += 1
            state.responses += found.responses
        if finding.json:
            self._heard(finding)


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
    if found.facts is not None:
        await store.record_conversation(found.facts)
    model, conversation = found.done.model, found.done.conversation
    if found.candidates:
        trained = await store.trained()
        for it in found.decoded_candidates():
            # The worker, which has no store, cannot know.
            if not trained.covers(it.timestamp_ns, it.continuation_ids):
                await store.record_candidate(it, model, conversation=conversation)
    if model:
        await store.record_pass(found.done)
