"""What a report must not be written over."""

import json

import pytest

from mindscore.cli import main


@pytest.fixture
def files(tmp_path):
    """The files of a run, by the option that names each."""
    talk, memories, configuration, store = (
        tmp_path / name for name in ("talk.json", "memories.json", "config.toml", "store.sqlite3")
    )
    messages = [
        {"role": "system", "content": "You help. She drinks tea."},
        {"role": "user", "content": "What does she drink?"},
        {"role": "assistant", "content": "Tea."},
    ]
    talk.write_text(json.dumps({"messages": messages}))
    memories.write_text('{"tea": "She drinks tea."}\n')
    configuration.write_text(f'[server]\nscorer = "toy"\n[store]\nurl = "sqlite:///{store}"\n')
    store.touch()
    return {"": talk, "--memories": memories, "--config": configuration, "store": store}


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("", "transcript"),
        ("--memories", "file of memories"),
        ("--config", "configuration"),
        ("store", "store"),
    ],
)
def test_a_file_that_the_run_needs_is_not_replaced(option, what, files, capsys):
    before = {file: file.read_bytes() for file in files.values()}
    options = [it for key in ("--memories", "--config") for it in (key, str(files[key]))]
    html = str(files[option])
    assert main(["score", str(files[""]), *options, "--html", html]) == 2
    assert f"--html {html}: that is the {what}" in " ".join(capsys.readouterr().err.split())
    assert {file: file.read_bytes() for file in files.values()} == before
