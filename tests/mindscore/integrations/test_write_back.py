"""write-back: what is noted where memories live, and that nothing is unless it is configured."""

import asyncio
import json
import logging
import stat
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from mindhooks import Context, MemoryScore, Node, Registry, ResponseDivergence
from mindhooks.testing import StubMind
from mindscore._util.errors import TranscriptError
from mindscore.config.settings import ConfigError, parse_table
from mindscore.flows.notes import Note, NoteError
from mindscore.integrations.letta.notes import LettaNotes, LettaOptions
from mindscore.integrations.mem0 import Mem0Notes
from mindscore.integrations.memory_file import MemoryFileNotes
from mindscore.integrations.write_back import WriteBack, WriteBackOptions

TEA = "The user drinks green tea."
FILE = f"# About the user\n\n- {TEA}\n- There are two cats.\n"


def note(key="tea", text=TEA, nats=1.5, **fields):
    given = {"is_noise": False, "responses": 2, "model": "toy", "conversation": "c", **fields}
    return Note(key, text, nats, scored_at=0.0, **given)


def score(key, *signed, noise=None):
    divergences = tuple(
        ResponseDivergence(at, f"a{at}", max(0.0, it), it, noise) for at, it in enumerate(signed)
    )
    largest = max((it.divergence for it in divergences), default=0.0)
    return MemoryScore(key, largest, "full", divergences)


class Place:
    """A place that keeps its notes, or fails."""

    def __init__(self, *errors):
        self.notes, self.closed = [], 0
        self._errors = list(errors)

    async def write(self, note):
        if self._errors:
            raise self._errors.pop(0)
        self.notes.append(note)

    async def aclose(self):
        self.closed += 1


async def noted(context, plugin, *scores):
    async with Registry(StubMind(context), {"server": {"scorer": "toy"}}) as registry:
        registry.register(plugin, name="write-back")
        for it in scores:
            await registry.emit_score(it)
        await registry.wait_idle()
    await plugin.aclose()


@pytest.fixture
def context():
    memory = Node(id="m", role="memory", text=TEA, token_ids=(1, 2), memory_key="tea")
    return Context((), (memory,), (), "c")


# -- the listener --------------------------------------------------------------------------


async def test_a_score_is_noted_with_the_text_it_is_of(context):
    place = Place()

    await noted(context, WriteBack({}, [place]), score("tea", 2.0, 0.5))

    (it,) = place.notes
    assert (it.key, it.nats, it.responses, it.is_noise) == ("tea", 2.0, 2, False)
    assert (it.text, it.model) == (TEA, "toy")
    assert place.closed == 1


async def test_what_is_within_noise_is_noted_as_that(context):
    place = Place()

    await noted(context, WriteBack({}, [place]), score("tea", 0.4, -0.3, 0.0, noise=0.5))

    assert [it.is_noise for it in place.notes] == [True]


async def test_a_memory_that_no_response_could_show_has_no_note(context):
    place = Place()

    await noted(context, WriteBack({}, [place]), score("tea"))

    assert place.notes == []


async def test_a_place_that_fails_keeps_no_note_from_another_and_is_logged_once(context, caplog):
    broken = Place(OSError("it is full"), OSError("it is full"), OSError("it burns"))
    well = Place()

    await noted(context, WriteBack({}, [broken, well]), *[score("tea", 1.0)] * 4)

    assert (len(well.notes), len(broken.notes)) == (4, 1)
    said = [it.getMessage() for it in caplog.records if it.levelno >= logging.WARNING]
    assert [it.count("it is full") for it in said] == [1, 0]
    assert "it burns" in said[1]


async def test_without_a_table_nothing_is_looked_at():
    class Mind(StubMind):
        async def context(self):
            raise AssertionError("nobody needs it")

    async with Registry(Mind(), {"server": {"scorer": "toy"}}) as registry:
        registry.load_entry_points()
        assert "write-back" in {it.name for it in registry.plugins()}
        await noted(None, WriteBack({}), score("tea", 1.0))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"mem0": {}}, "plugins.settings.write-back.mem0"),
        ({"mem0": {"config": "here.json"}}, "plugins.settings.write-back.mem0.config"),
        ({"memory_files": ["MEMORY.md"]}, "plugins.settings.write-back.memory_files"),
        ({"letta": {"base_url": "http://x"}}, "plugins.settings.write-back.letta"),
        ({"cognee": {"alpha": 2}}, "plugins.settings.write-back.cognee.alpha"),
        ({"zep": {}}, "known here: cognee, letta, mem0, memory_files"),
    ],
)
def test_a_wrong_table_names_the_key(table, said):
    with pytest.raises(ConfigError) as error:
        parse_table(table, WriteBackOptions, "plugins.settings.write-back")
    assert said in str(error.value)


# -- Letta -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "is_written"),
    [("Tea.\nTwo cats.", True), ("Tea.", False), ("", False), ("Two cats.\n  Tea", False)],
)
@pytest.mark.parametrize("printed", [True, False])
async def test_a_block_that_was_shortened_meanwhile_gets_no_note(value, is_written, printed):
    class Blocks:
        metadata = None

        async def retrieve(self, label, agent_id):
            return SimpleNamespace(value=value, metadata=None)

        async def update(self, label, agent_id, metadata):
            self.metadata = metadata

    blocks = Blocks()
    notes = LettaNotes(LettaOptions(agent="a"))
    notes._client = SimpleNamespace(agents=SimpleNamespace(blocks=blocks))
    text = "Tea.\nTwo cats."
    if printed:
        text = f"<human>\n<metadata>\n- chars_current=14\n</metadata>\n<value>\n{text}\n</value>"
    with nullcontext() if is_written else pytest.raises(NoteError, match="another text"):
        await notes.write(note("letta:human", text))
    assert (blocks.metadata is not None) == is_written


# -- a memory file ------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "MEMORY.md"
    file.write_text(FILE)
    return file


def sidecar(file):
    return json.loads(file.with_name("MEMORY.md.mindscore.json").read_text())["memories"]


async def test_a_note_goes_to_the_sidecar_under_the_files_own_key(file):
    await MemoryFileNotes([str(file)]).write(note("whatever", "The user  drinks\ngreen tea."))

    ((key, fields),) = sidecar(file).items()
    assert key == "about-the-user/the-user-drinks-green-tea"
    assert fields == {
        "mindscore_nats": 1.5,
        "mindscore_within_noise": False,
        "mindscore_responses": 2,
        "mindscore_model": "toy",
        "mindscore_conversation": "c",
        "mindscore_scored_at": "1970-01-01T00:00:00+00:00",
    }
    assert file.read_text() == FILE


async def test_the_whole_file_is_a_memory_under_its_name(file):
    await MemoryFileNotes([str(file)]).write(note(text=FILE))

    assert list(sidecar(file)) == ["MEMORY.md"]


async def test_a_later_note_replaces_the_earlier_one_and_what_is_gone_goes(file):
    notes = MemoryFileNotes([str(file)])
    await notes.write(note())
    await notes.write(note(text="There are two cats."))
    file.write_text(FILE.replace(f"- {TEA}\n", ""))
    await notes.write(note(text="There are two cats.", nats=3.0))

    ((key, fields),) = sidecar(file).items()
    assert (key, fields["mindscore_nats"]) == ("about-the-user/there-are-two-cats", 3.0)


async def test_a_note_on_what_a_file_was_before_goes_though_its_key_stays(file):
    notes = MemoryFileNotes([str(file)])
    await notes.write(note(text=FILE, nats=9.0))
    file.write_text(f"{FILE}- Something new.\n")
    await notes.write(note())

    assert list(sidecar(file)) == ["about-the-user/the-user-drinks-green-tea"]


async def test_a_file_that_cannot_be_read_keeps_no_note_from_the_others(file):
    missing = file.with_name("GONE.md")
    with pytest.raises(TranscriptError, match="GONE"):
        await MemoryFileNotes([str(missing), str(file)]).write(note())

    assert len(sidecar(file)) == 1


async def test_a_file_that_takes_too_long_to_read_is_said(file):
    with file.open("r+b") as stream:
        stream.truncate(100 * 2**20)
    with pytest.raises(NoteError, match=r"MEMORY\.md: is over"):
        await MemoryFileNotes([str(file)]).write(note())


async def test_a_damaged_sidecar_is_written_anew(file):
    file.with_name("MEMORY.md.mindscore.json").write_text("{")

    await MemoryFileNotes([str(file)]).write(note())

    assert len(sidecar(file)) == 1


async def test_a_memory_that_no_file_holds_is_said_and_nothing_is_written(file):
    with pytest.raises(NoteError, match="holds 'dog'"):
        await MemoryFileNotes([str(file)]).write(note("dog", "A dog called Max."))

    assert [it.name for it in file.parent.iterdir()] == ["MEMORY.md"]


async def test_notes_of_many_at_once_are_all_kept(file):
    lines = [f"Fact number {at}" for at in range(30)]
    file.write_text("".join(f"- {it}\n" for it in lines))
    places = [MemoryFileNotes([str(file)]) for _ in range(3)]

    await asyncio.gather(*(places[at % 3].write(note(text=it)) for at, it in enumerate(lines)))

    assert len(sidecar(file)) == 30
    mode = stat.S_IMODE(file.with_name("MEMORY.md.mindscore.json").stat().st_mode)
    assert mode == 0o600


# -- mem0, whose real package tests/hosts/write_back.py has ----------------------------------------


class Memory:
    """The part of mem0's ``Memory`` that is used, over a dictionary."""

    def __init__(self, **texts):
        self.texts, self.metadata = texts, {}

    def get(self, id_):
        return {"id": id_, "memory": self.texts[id_]} if id_ in self.texts else None

    def update(self, id_, *, metadata):
        self.metadata[id_] = metadata


async def test_mem0_has_the_note_in_its_metadata_of_the_same_text_alone():
    memory = Memory(tea=TEA, cats="Three cats.")
    notes = Mem0Notes(memory=memory)

    await notes.write(note())
    with pytest.raises(NoteError, match="another text"):
        await notes.write(note("cats", "There are two cats."))
    with pytest.raises(NoteError, match="no memory of that id"):
        await notes.write(note("dog"))

    assert list(memory.metadata) == ["tea"]
    assert memory.metadata["tea"]["mindscore_nats"] == 1.5
