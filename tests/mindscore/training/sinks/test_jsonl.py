"""The files of the ``jsonl`` sink: whole or not there, private, once for each key."""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest

from mindhooks import NotAccepted, load_sink
from mindscore._util import files
from mindscore._util.errors import ConfigError
from mindscore.measure.prompts import response_hash
from mindscore.training.sinks.jsonl import provenance_file, write_samples

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder(tmp_path):
    """Where the files go; not there yet."""
    return tmp_path / "a" / "new" / "folder"


async def sink_in(folder, **train):
    return await load_sink("jsonl", {"folder": str(folder), **train}, {})


def names(folder):
    return sorted(it.name for it in folder.iterdir())


async def test_a_hand_off_is_a_file_of_its_key_and_one_of_where_each_line_comes_from(
    folder, sample
):
    sink = await sink_in(folder)
    said = await sink.send([sample("accepted"), sample(timestamp_ns=8)], KEY)
    file = folder / f"mindscore-{KEY}.jsonl"
    assert said == str(file)
    assert names(folder) == [f"mindscore-{KEY}.jsonl", f"mindscore-{KEY}.provenance.json"]
    assert [it.name for it in folder.glob("*.jsonl")] == [file.name]
    lines = [json.loads(line) for line in file.read_bytes().splitlines()]
    assert [it["labels"] for it in lines] == [[-100, -100, 3, 4]] * 2


async def test_the_provenance_says_of_each_line_what_it_was_made_from(folder, sample):
    sink = await sink_in(folder)
    await sink.send([sample("accepted", "alternate"), sample(timestamp_ns=8, context="full")], KEY)
    said = json.loads((folder / f"mindscore-{KEY}.provenance.json").read_bytes())
    assert said["mindscore"] == version("mindscore")
    assert said["written_at"].startswith("20")
    assert said["format"] == "input_ids"
    first, second = said["lines"]
    assert first == {
        "namespace": "n",
        "model": "m",
        "timestamp_ns": 7,
        "hash": response_hash((3, 4)),
        "node_id": "reply",
        "entry_idx": 4,
        "divergence": 2.5,
        "noise": 0.25,
        "decision": "accepted",
        "answer": "alternate",
        "context": "bare",
    }
    assert [second[it] for it in ("timestamp_ns", "decision", "context")] == [8, None, "full"]


async def test_files_and_folders_are_their_owners_alone(folder, sample):
    before = os.umask(0)
    try:
        await (await sink_in(folder)).send([sample()], KEY)
    finally:
        os.umask(before)
    modes = {it.name: it.stat().st_mode & 0o777 for it in folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


async def test_the_same_key_again_leaves_the_file_as_it_is(folder, sample):
    sink = await sink_in(folder)
    said = await sink.send([sample()], KEY)
    before = Path(said).stat()
    assert await sink.send([sample()], KEY) == said
    assert Path(said).stat() == before
    assert len(names(folder)) == 2


async def test_other_keys_are_other_files(folder, sample):
    sink = await sink_in(folder)
    assert await sink.send([sample()], KEY) != await sink.send([sample()], KEY[::-1])
    assert len(list(folder.glob("*.jsonl"))) == 2


async def test_characters_that_end_lines_elsewhere_do_not_end_one_here(folder, sample):
    sink = await sink_in(folder)
    said = await sink.send([sample(node_id="a\u2028b\u0085c\nd")], KEY)
    assert len(Path(said).read_text().splitlines()) == 1
    provenance = json.loads(provenance_file(Path(said)).read_bytes())
    assert provenance["lines"][0]["node_id"] == "a\u2028b\u0085c\nd"


async def test_a_folder_that_cannot_be_is_certain_to_have_taken_nothing(tmp_path, sample):
    (tmp_path / "file").touch()
    sink = await sink_in(tmp_path / "file" / "folder")
    with pytest.raises(NotAccepted, match="cannot be written"):
        await sink.send([sample()], KEY)


async def test_what_fails_on_its_way_leaves_nothing(folder, sample, monkeypatch):
    sink = await sink_in(folder)
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(NotAccepted, match="cannot be written: no space"):
        await sink.send([sample()], KEY)
    assert names(folder) == []


async def test_what_may_not_outlast_a_loss_of_power_is_not_said_to_be_refused(
    folder, sample, monkeypatch
):
    sink = await sink_in(folder)
    with monkeypatch.context() as patched:
        patched.setattr(files, "sync_folder", refuse)
        with pytest.raises(OSError, match="no space"):
            await sink.send([sample()], KEY)
    assert len(names(folder)) == 2
    # Again under the same key: it is there once.
    await sink.send([sample()], KEY)
    assert len(list(folder.glob("*.jsonl"))) == 1


def refuse(*_):
    raise OSError(28, "no space")


async def test_a_sample_that_has_no_such_shape_leaves_nothing(folder, sample):
    sink = await sink_in(folder, format="messages")
    with pytest.raises(NotAccepted, match="ChatML"):
        await sink.send([sample()], KEY)
    assert names(folder) == []


async def test_without_a_folder_they_go_to_the_users_own(sample, tmp_path):
    sink = await load_sink("jsonl", {}, {})
    said = await sink.send([sample()], KEY)
    assert Path(said).parent == tmp_path / "data" / "mindscore" / "training"
    assert str(Path(said).parent) in sink.destination


async def test_a_table_that_is_wrong_is_an_error_of_the_configuration():
    with pytest.raises(ConfigError, match=r"train\.format"):
        await load_sink("jsonl", {"format": "parquet"}, {})
    with pytest.raises(ConfigError, match=r"train\.folder: expected \"\" or an absolute path"):
        await load_sink("jsonl", {"folder": "out"}, {})


def test_a_file_that_is_replaced_is_replaced_whole(tmp_path, sample):
    file = tmp_path / "out.jsonl"
    file.write_text("old " * 10000)
    write_samples(file, [sample()], "input_ids")
    assert len(file.read_bytes().splitlines()) == 1
    assert names(tmp_path) == ["out.jsonl", "out.provenance.json"]


async def test_a_folder_of_a_user_that_is_not_there_names_the_key():
    with pytest.raises(ConfigError, match=r"train\.folder: '~nobody-here/x'"):
        await load_sink("jsonl", {"folder": "~nobody-here/x"}, {})
