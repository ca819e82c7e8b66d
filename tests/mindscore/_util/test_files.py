"""Files and folders that are whole or not there, and private."""

import stat

import pytest

from mindscore._util import files
from mindscore._util.files import whole_folder, write_files, write_whole


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def refuse(*_):
    raise OSError(28, "no space")


def names(folder):
    return sorted(it.name for it in folder.iterdir())


def test_a_file_is_replaced_whole_and_private(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"old " * 100)
    file.chmod(0o644)
    write_files({file: b"new"})
    assert (file.read_bytes(), mode(file), names(tmp_path)) == (b"new", 0o600, ["file"])


def test_missing_folders_are_made_private(tmp_path):
    file = tmp_path / "a" / "b" / "file"
    write_whole(file, b"new")
    assert file.read_bytes() == b"new"
    assert {mode(it) for it in (file.parent, file.parent.parent)} == {0o700}


def test_of_files_that_belong_together_none_is_replaced_when_one_cannot_be_written(tmp_path):
    first, second = tmp_path / "first", tmp_path / "missing" / "second"
    first.write_bytes(b"old")
    with pytest.raises(FileNotFoundError):
        write_files({first: b"new", second: b"new"})
    assert (first.read_bytes(), names(tmp_path)) == (b"old", ["first"])


def test_what_does_not_reach_the_disk_replaces_nothing(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_bytes(b"old")
    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(OSError, match="no space"):
        write_files({file: b"new"})
    assert (file.read_bytes(), names(tmp_path)) == (b"old", ["file"])


def test_names_planted_beside_a_file_are_not_followed(tmp_path):
    """A link where a predictable temporary file would be cannot redirect what is written."""
    victim, file = tmp_path / "victim", tmp_path / "file"
    victim.write_bytes(b"as it was")
    for name in (".file", ".file.new", "file.new"):
        (tmp_path / name).symlink_to(victim)
    write_files({file: b"secret"})
    assert victim.read_bytes() == b"as it was"
    assert not file.is_symlink()


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "folder"

    def fail_halfway():
        with whole_folder(folder) as unfinished:
            (unfinished / "half").touch()
            refuse()

    with pytest.raises(OSError, match="no space"):
        fail_halfway()
    assert names(tmp_path) == []
    with whole_folder(folder) as unfinished:
        (unfinished / "file").touch()
        assert mode(unfinished) == 0o700
        assert not folder.exists()
    assert (names(tmp_path), names(folder)) == (["folder"], ["file"])
