"""Which servers passed the self-test, so that not every run asks again."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
import platformdirs

from mindhooks import Scorer, ScorerError, in_thread
from mindscore.config import ServerSettings
from mindscore.private_files import make_file
from mindscore.selftest.tester import run_test

logger = logging.getLogger(__name__)

VALID_S = 7 * 24 * 3600.0
"""Seconds for which a passed test counts. A server may be updated meanwhile."""

_VERSION = 1
"""Of the test: one that checks more is to be passed anew."""

_passed: dict[str, float] = {}
"""When, in seconds since 1970, a server passed in this process: the file may not be writable."""


async def ensure_tested(scorer: Scorer, settings: ServerSettings, tokens: Sequence[int]) -> None:
    """``self_test``, where the scorer asks for it and its server has not passed it lately.

    A scorer asks with a true attribute ``self_tested``. A test that failed is not remembered, nor
    one that could not check everything.

    Raises:
        ScorerError: as ``self_test``.
    """
    if not settings.self_test or not getattr(scorer, "self_tested", False):
        return
    server = _server(scorer, settings)
    if _is_valid(_passed.get(server)):
        return
    file = platformdirs.user_data_path("mindscore") / "self-tests.json"
    if _is_valid((await in_thread(_read, file)).get(server)):
        return
    try:
        is_whole = await run_test(scorer, tokens, settings.concurrency)
    except ScorerError as error:
        where = settings.base_url.removesuffix("/").removesuffix("/v1")
        raise error if where in str(error) else ScorerError(f"{where}: {error}") from error
    if is_whole:
        _passed[server] = time.time()
        await in_thread(_remember, file, server)


def _server(scorer: Scorer, settings: ServerSettings) -> str:
    """The scorer, its server and its model, as a hash: an address may be nobody's business."""
    kind = f"{type(scorer).__module__}.{type(scorer).__qualname__}"
    facts = [_VERSION, kind, settings.base_url, scorer.model, settings.options]
    return hashlib.sha256(msgspec.json.encode(facts, enc_hook=repr, order="sorted")).hexdigest()


def _is_valid(when: float | None) -> bool:
    # One from the future has a wrong clock behind it.
    return when is not None and 0 <= time.time() - when < VALID_S


def _read(file: Path) -> dict[str, float]:
    """When each server passed; none where the file is missing, unreadable or not ours."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, float])
    except (OSError, ValueError) as error:
        logger.debug("%s: %s: no server counts as tested", file, error)
        return {}


def _remember(file: Path, server: str) -> None:
    """Add ``server``. Of two processes at once one may lose its entry, and tests again."""
    valid = {name: when for name, when in _read(file).items() if _is_valid(when)}
    valid[server] = time.time()
    try:
        _write(file, valid)
    except OSError as error:
        logger.debug("%s: %s: the next process tests again", file, error)


def _write(file: Path, passed: Mapping[str, float]) -> None:
    unfinished = file.with_name(f"{file.name}.{os.getpid()}")
    make_file(unfinished)
    try:
        unfinished.write_bytes(msgspec.json.encode(passed))
        unfinished.replace(file)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
