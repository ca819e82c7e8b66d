"""Archives of five formats with memories of known kinds: scored, advised on, and verified."""

import json

import pytest
from tests.bench.archive_shapes import write_archive

from mindscore.cli import main

pytestmark = pytest.mark.slow

RIGHT = {
    "helping": {"keep"},
    "duplicate": {"keep", "merge"},
    "misleading": {"harmful"},
    "idle": {"drop"},
}


@pytest.fixture
def advised(tmp_path, capsys):
    """Scores an archive of as many conversations; its kinds, and the document of the advice."""

    def run(conversations):
        kinds = write_archive(tmp_path, conversations)
        options = ["--set", "server.scorer=toy", "--memories", f"{tmp_path}/memories.json"]
        talks = f"{tmp_path}/conversations"
        assert main(["score", talks, "--full", "--hold", *options]) == 0
        capsys.readouterr()
        assert main(["advise", "--verify", talks, "--json", *options]) == 0
        document = json.loads(capsys.readouterr().out)
        return kinds, {it["key"]: it["verdict"] for it in document["memories"]}, document["receipt"]

    return run


def test_of_100_conversations_nothing_wrong_is_said_and_most_is_found(advised):
    kinds, found, receipt = advised(100)
    wrong = {
        key: verdict
        for key, verdict in found.items()
        if verdict not in (*RIGHT[kinds[key]], "not enough evidence")
    }
    assert not wrong
    for kind, least in {"helping": 10, "duplicate": 5, "misleading": 3, "idle": 18}.items():
        assert sum(found[key] in RIGHT[kind] for key in kinds if kinds[key] == kind) >= least
    assert receipt["rounds"][-1]["lost"] == 0
    assert receipt["conversations"] == 100
    assert receipt["complete"]
