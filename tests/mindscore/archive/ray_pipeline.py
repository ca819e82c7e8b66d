"""Ray's pipeline without Ray: the rows, the worker and the folder are those of a real pass."""

import asyncio
import pickle
from contextlib import closing, contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from mindscore.archive import ray_engine, ray_pass
from mindscore.archive.ray_rows import Waiting, as_rows, as_table
from mindscore.archive.ray_share import PassShare
from mindscore.archive.ray_worker import ConversationWorker
from mindscore.archive.sources import Sources
from mindscore.archive.survey import ArchiveReader, Survey


def tables(tmp_path, **more):
    return {
        "server": {"scorer": "toy", "require_images": True},
        "store": {"url": f"sqlite:///{tmp_path}/store.sqlite3", "retention_days": 0},
        **more,
    }


class KilledError(Exception):
    """Ends a command in the middle."""


class Pipeline:
    """Ray's pipeline in this process: one conversation after the other, with its checkpoint.

    After ``until`` conversations it is killed; those of ``deadly`` kill every worker.
    """

    def __init__(self, monkeypatch):
        self.until, self.deadly, self.scored, self.done = None, (), [], set()
        monkeypatch.setattr(ray_engine, "require_ray", lambda: None)
        monkeypatch.setattr(ray_pass, "pack", pickle.dumps)
        monkeypatch.setattr(ray_pass, "connected", self.connected)
        monkeypatch.setattr(ray_pass, "score_with_ray", self.score)

    @contextmanager
    def connected(self, settings):
        yield 1

    def score(self, orders, folder, workers):
        checkpoint = Path(folder.checkpoint)
        if not checkpoint.exists():
            checkpoint.mkdir()
            self.done = set()
        share = PassShare(orders.places, orders.max_tokens)
        worker = ConversationWorker(orders, share, lambda: "1")
        (waiting,) = folder.tables("waiting")
        with closing(worker):
            for row in as_rows(Waiting, waiting):
                if row.id not in self.done:
                    self.score_one(worker, row, folder)
        return share.remarks()

    def score_one(self, worker, row, folder):
        if len(self.scored) == self.until:
            raise KilledError
        self.scored.append(row.id)
        if row.source.endswith(self.deadly or "nothing"):
            return
        found = worker(as_table(Waiting, [row]))
        pq.write_table(found, f"{folder.found}/{len(self.scored):03}.parquet")
        self.done.add(row.id)


def run(kind, folder, tables, heard=lambda _: None, command="score-full", max_tokens=None):
    """Run a pass over ``folder``; return what it did."""
    reader = ArchiveReader(Sources([folder]))
    survey = Survey(reader)
    work = kind(reader, tables, command, heard=heard, max_tokens=max_tokens)
    asyncio.run(work.run(survey, survey.select()))
    return work.state
