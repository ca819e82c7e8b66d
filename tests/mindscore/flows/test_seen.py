"""Facts kept beside scores: counted once a run, and there with the first score already."""

import pytest

from mindhooks import MindCommand, hookimpl
from mindscore.archive.unit import open_unit
from mindscore.conversation.native import read_transcript
from mindscore.flows import seen

MEMORIES = 40


@pytest.fixture
def counted(monkeypatch):
    """The nodes that were looked at for the facts of a conversation."""
    looked_at, real = [], seen.is_response

    def is_response(node):
        looked_at.append(node.id)
        return real(node)

    monkeypatch.setattr(seen, "is_response", is_response)
    return looked_at


@pytest.fixture
def talk(say):
    """Makes a conversation of many memories and two responses."""

    def make(memories):
        said = [say.memory(f"k{it:02}", it, text=f"Fact {it}.") for it in range(memories)]
        return say.talk(say.user(1), say.reply(2, 3), say.reply(4), identity=said)

    return make


async def test_a_run_of_many_memories_counts_its_conversation_once(talk, host, counted):
    many = talk(MEMORIES)
    async with host(many) as it:
        await it.run(MindCommand.SCORE_FULL)
        assert counted == ["c0", "c1", "c2"]
        [facts] = it.rows("conversations")
        assert (facts["memories"], facts["responses"]) == (MEMORIES, 2)
        texts = {row["key"]: (row["text"], row["tokens"]) for row in it.rows("memory_texts")}
    nodes = many.context().identity
    assert texts == {node.memory_key: (node.text, len(node.token_ids)) for node in nodes}


async def test_the_facts_are_there_with_the_first_score_and_as_new_as_the_last(talk, host, clock):
    class Looking:
        @hookimpl
        def on_score(self):
            [facts] = it.rows("conversations")
            cells = it.rows("cells")
            found.append((facts, len(it.rows("memory_texts"))))
            assert facts["seen_at"] == max(cell["scored_at"] for cell in cells) == clock.now
            clock.now += 1

    found = []
    async with host(talk(4)) as it:
        it.registry.register(Looking())
        await it.run(MindCommand.SCORE_FULL)
    assert [texts for _, texts in found] == [1, 2, 3, 4]
    facts = [{name: it for name, it in facts.items() if name != "seen_at"} for facts, _ in found]
    assert facts == [facts[-1]] * 4


async def test_another_run_counts_the_conversation_as_it_is_then(talk, host):
    async with host(talk(1)) as it:
        await it.run(MindCommand.SCORE_FULL)
        it.mind.snapshot = talk(2).context()
        await it.run(MindCommand.SCORE_FULL)
        [facts] = it.rows("conversations")
    assert facts["memories"] == 2


async def test_what_one_worker_has_found_is_counted_once_for_all_rows(tmp_path, counted):
    lines = [f'{{"role":"memory","key":"k{it}","content":"Fact {it}."}}' for it in range(MEMORIES)]
    lines += ['{"role":"user","content":"hi"}', '{"role":"assistant","content":"Fact 1."}']
    file = tmp_path / "talk.jsonl"
    file.write_text("\n".join(lines))
    tables = {"server": {"scorer": "toy"}, "plugins": {"disabled": ["score-recorder"]}}
    async with open_unit(tables) as unit:
        scored = await unit.score(read_transcript(file), "score-full")
    assert len(scored.evidence()) == len(scored.texts(keep_texts=True)) == MEMORIES
    assert scored.facts().memories == MEMORIES
    assert len(counted) == 2
