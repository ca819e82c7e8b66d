"""A pass with Ray, without Ray: its rows, its worker, its folder, and what reaches the store."""

import asyncio
import json
import pickle
import subprocess
import sys
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from mindhooks import MemoryScore
from mindscore._util.errors import TranscriptError, UsageError
from mindscore.archive.archive_pass import ArchivePass
from mindscore.archive.attempt import Work
from mindscore.archive.ray_engine import require_ray
from mindscore.archive.ray_folder import RayFolder
from mindscore.archive.ray_pass import LOST, RayPass, alone, keep
from mindscore.archive.ray_rows import Finding, Waiting, as_rows, as_table, row_id, sealed, unpack
from mindscore.archive.ray_share import PassShare
from mindscore.archive.ray_worker import sent_tables
from mindscore.archive.resuming import Past
from mindscore.cli import main
from mindscore.config.settings import parse_settings
from mindscore.measure.screening.receipt import ScreenReceipt
from mindscore.readers.conversations import Conversations
from mindscore.store import ConversationFacts, Evidence, KnownScore, MemoryText, Notes, Pass, Store
from mindscore.store.matrix_rows import encode_row

from .kept import kept
from .ray_pipeline import KilledError, run, tables

KEY = bytes(32)
NOTES = Notes(ScreenReceipt("words", exact=("k",), spent_tokens=200))
DONE = Pass("m", "c", "score-full", "f", 5.0, 1.0, 3, 200, None, None)
FOUND = Finding(
    "c@1",
    "talk.jsonl",
    DONE,
    [Evidence("c", "m", "k", "t", "full", "n", 3, 0.5, -0.5, None, 0.1, 7, None, 10.0)],
    [MemoryText("k", "t", "likes tea", None, 5.0, 5.0)],
    ConversationFacts("c", "talk.jsonl", "Tea", 1, 1, 20, None, 4.0, 5.0),
    [KnownScore("k", "m", "t", "c", 0.5, 10.0, 1)],
    [encode_row(MemoryScore("k", 0.5, "full", (), fingerprint="f"))],
    [],
    '{"command":"score-full"}',
    [],
    json.dumps(NOTES.encoded()),
)


def talk(folder, name, *, bad=False):
    """Write a conversation; a ``bad`` one has an image, which the scorer is not given."""
    lines = [
        {"role": "memory", "key": "tea", "content": f"{name} likes green tea"},
        {"role": "memory", "key": "cats", "content": "There are two cats"},
        {"role": "user", "content": f"What does {name} drink?"},
        {"role": "assistant", "content": "Green tea"},
    ]
    if bad:
        lines[2]["images"] = [{"mime": "image/png", "data": "aGk="}]
    text = "".join(json.dumps(it) + "\n" for it in lines)
    (folder / f"{name}.jsonl").write_text(text)


@pytest.fixture
def archive(tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in ("ann", "ben", "cas"):
        talk(folder, name)
    return folder


def test_importing_the_engine_imports_neither_ray_nor_pyarrow():
    code = (
        "import sys, mindscore.archive.ray_pass, mindscore.cli;"
        "sys.exit(bool({'ray', 'pyarrow', 'torch'} & sys.modules.keys()))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_ray_an_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(UsageError, match=r"pip install 'mindscore\[ray\]'"):
        require_ray()


@pytest.mark.parametrize(
    "rows",
    [
        [FOUND],
        [replace(FOUND, evidence=[], facts=None, scores=[], rows=[], given_up=[DONE, DONE])],
        [FOUND, replace(FOUND, id="other", candidates=["{}", "{}"])],
        [],
    ],
)
def test_a_finding_comes_through_a_table_as_it_was(rows):
    assert as_rows(Finding, as_table(Finding, rows)) == rows


def test_a_text_that_utf8_cannot_hold_comes_through_repaired():
    row = replace(FOUND, source="caf\udce9.jsonl")

    (found,) = as_rows(Finding, as_table(Finding, [row]))

    assert found.source == "caf\N{REPLACEMENT CHARACTER}.jsonl"


def test_a_conversation_and_its_past_are_unpacked_only_with_their_own_seal(archive):
    conversations = Conversations(archive / "ann.jsonl")
    transcript = conversations.transcript(conversations.chosen(None))
    scores = [KnownScore("tea", "m", "t", "a", 0.5, 10.0, 1)]
    work = Work(transcript, "content", ("tea",), 9, Past(DONE, scores))
    packed = pickle.dumps(work)
    row = Waiting("a@1", "a", "", packed, sealed(KEY, "a@1", packed))

    assert unpack(row, KEY) == work
    for changed in (
        replace(row, work=pickle.dumps(replace(work, past=Past()))),
        replace(row, id="b@1"),
        replace(row, seal=sealed(bytes([1] * 32), "a@1", packed)),
    ):
        with pytest.raises(TranscriptError, match="changed on its way"):
            unpack(changed, KEY)


def test_a_conversation_that_changed_or_has_other_settings_is_another_row():
    rows = {row_id("a", "1", b"x"), row_id("a", "2", b"x"), row_id("a", "1", b"y")}

    assert len(rows | {row_id("b", "1", b"x")}) == 4


def test_workers_are_sent_no_password_and_keep_nothing():
    url = "postgresql+psycopg://me:secret@db/scores"

    sent = sent_tables({"store": {"url": url, "keep_texts": False}, "server": {"scorer": "toy"}})

    assert "secret" not in repr(sent)
    assert sent["store"] == {"keep_texts": False}
    assert sent["plugins"] == {"disabled": ["score-recorder"]}
    assert sent["server"] == {"scorer": "toy"}


def test_servers_are_divided_evenly_and_a_restarted_worker_keeps_its_own():
    share = PassShare({"a": "1", "b": "2"}, None)
    taken = [share.take(worker, []) for worker in ("1", "2", "3", "4")]

    assert sorted(taken) == ["a", "a", "b", "b"]
    assert [share.take(worker, []) for worker in ("4", "3", "2", "1")] == taken[::-1]


def test_what_one_server_gives_up_goes_to_another_and_the_worker_stays():
    share = PassShare({"a": "1", "b": "2"}, None)
    assert share.take("1", []) == "a"
    share.end("a", "busy")

    assert share.take("1", ["a"]) == "b"
    share.end("b", None)
    assert share.take("1", []) == "a"
    share.end("a", None)
    share.end("a", "busy")
    assert (share.take("1", []), share.remarks()) == ("a", [])


def test_what_a_server_has_begun_goes_on_with_it_while_it_is_up():
    share = PassShare({"a": "1", "b": "2"}, None)
    share.take("1", [])

    assert [share.take("1", [], it) for it in ("2", "", "other")] == ["b", "a", "a"]
    assert share.take("1", ["b"], "2") == "a"


def test_a_server_that_gives_up_twice_in_a_row_is_down_and_its_workers_move():
    share = PassShare({"a": "1", "b": "2"}, None)
    assert [share.take(it, []) for it in ("1", "2")] == ["a", "b"]
    share.end("a", "busy")
    share.end("a", "gone")
    share.end("a", "gone")

    assert [share.take("1", []), share.take("1", ["b"])] == ["b", None]
    assert share.remarks() == ["a is down, and takes no more: gone"]


def test_keeping_a_finding_twice_is_keeping_it_once(tmp_path):
    settings = tables(tmp_path)
    store = Store(parse_settings(settings).store)

    asyncio.run(keep(store, FOUND))
    once = kept(settings)
    asyncio.run(keep(store, FOUND))

    assert kept(settings) == once
    assert len(once) == 7


@pytest.mark.parametrize("command", ["score", "score-full", "score-finetune"])
def test_a_pass_with_ray_keeps_what_one_without_keeps(tmp_path, archive, pipeline, command):
    more = {
        "memory": {"token_cutoff": 1.0},
        "finetune": {"window_fraction": 1.0},
        "plugins": {"settings": {"memory-scoring": {"screen": True}}},
    }
    with_ray, without = (tables(tmp_path / it, **more) for it in ("a", "b"))
    heard = []

    state = run(RayPass, archive, with_ray, heard.append, command)
    other = run(ArchivePass, archive, without, command=command)

    assert kept(with_ray) == kept(without)
    assert (state.scored, state.calls, state.responses) == (3, other.calls, other.responses)
    assert sorted(it.document()["source"] for it in heard) == [
        str(archive / f"{name}.jsonl") for name in ("ann", "ben", "cas")
    ]


def test_what_has_not_changed_is_not_sent_again(tmp_path, archive, pipeline):
    run(RayPass, archive, tables(tmp_path))
    talk(archive, "dan")

    state = run(RayPass, archive, tables(tmp_path))

    assert (state.scored, state.unchanged, len(pipeline.scored)) == (1, 3, 4)


def test_one_that_fails_stops_no_other_and_is_tried_again(tmp_path, archive, pipeline):
    talk(archive, "bad", bad=True)

    for attempt in (1, 2):
        state = run(RayPass, archive, tables(tmp_path))

        (failure,) = state.failures
        assert failure.source.endswith("bad.jsonl")
        assert failure.error
        assert len(pipeline.scored) == 3 + attempt


def test_after_a_kill_the_same_command_goes_on(tmp_path, archive, pipeline):
    talk(archive, "bad", bad=True)
    pipeline.until = 3
    with pytest.raises(KilledError):
        run(RayPass, archive, tables(tmp_path))
    pipeline.until = None

    state = run(RayPass, archive, tables(tmp_path))

    assert state.scored == 3
    # Only what failed is tried twice.
    assert len(pipeline.scored) == len(set(pipeline.scored)) == 5
    assert sum("~1" in row for row in pipeline.scored) == 1


def test_what_an_ended_command_had_found_is_kept_by_the_next_of_its_kind(
    tmp_path, archive, pipeline
):
    pipeline.until = 2
    with pytest.raises(KilledError):
        run(RayPass, archive, tables(tmp_path))
    pipeline.until = None
    other = tmp_path / "other"
    other.mkdir()
    talk(other, "zoe")

    run(RayPass, other, tables(tmp_path))
    state = run(RayPass, archive, tables(tmp_path))

    assert (state.unchanged, state.scored) == (2, 1)


def test_one_whose_workers_died_is_a_failure(tmp_path, archive, pipeline):
    pipeline.deadly = "ben.jsonl"

    state = run(RayPass, archive, tables(tmp_path))

    assert [it.error for it in state.failures] == [LOST]
    assert state.scored == 2


def test_a_file_that_was_cut_off_is_passed_over(tmp_path):
    folder = RayFolder(str(tmp_path / "ray"))
    folder.begin()
    (tmp_path / "ray/found/a.parquet").write_bytes(b"PAR1 cut")
    pq.write_table(as_table(Finding, [FOUND]), f"{folder.found}/b.parquet")

    assert list(folder.findings()) == [FOUND]
    assert not folder.begin()
    folder.clear()
    assert not list((tmp_path / "ray").iterdir())


def test_a_second_command_at_the_same_pass_is_refused(tmp_path):
    lock = str(tmp_path / "lock")

    with alone(lock), pytest.raises(UsageError, match="another command"), alone(lock):
        pass


def test_the_command_refuses_ray_where_it_is_not_installed(archive, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)

    status = main(["score", str(archive), "--engine", "ray", "--set", "server.scorer=toy"])

    assert status == 2
    assert "pip install 'mindscore[ray]'" in capsys.readouterr().err


def test_the_command_runs_even_one_conversation_with_ray(tmp_path, archive, pipeline, capsys):
    url = f"store.url=sqlite:///{tmp_path}/store.sqlite3"
    settings = ["--set", "server.scorer=toy", "--set", url]

    status = main(
        ["score", str(archive / "ann.jsonl"), "--full", "--engine", "ray", "--json", *settings]
    )

    assert (status, len(pipeline.scored)) == (0, 1)
    assert json.loads(capsys.readouterr().out)["command"] == "score-full"
