"""``score`` and ``plan`` of conversations in other formats than our own."""

import json

import pytest

TEA, DOG = "The user drinks green tea.", "The user has a dog called Rex."
MESSAGES = [
    {"role": "system", "content": f"You help.\n- {TEA}\n- {DOG}"},
    {"role": "user", "content": "What do I drink?"},
    {"role": "assistant", "content": "You drink green tea."},
    {"role": "user", "content": "And my dog?"},
    {"role": "assistant", "content": "Your dog is called Rex."},
]


@pytest.fixture
def chat(tmp_path):
    """Writes a file of OpenAI's format: ``chat({"messages": [...]}, ...)``."""

    def write(*records):
        file = tmp_path / "chat.jsonl"
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        return file

    return write


@pytest.fixture
def known(tmp_path):
    """A file that names the two memories, and one that is not there."""
    file = tmp_path / "known.json"
    file.write_text(json.dumps({"tea": TEA, "dog": DOG, "cat": "The user has a cat."}))
    return file


def scores(document):
    return {it["key"]: it["score"] for it in document["scores"]}


def test_named_memories_are_scored_where_a_format_marks_none(score, chat, known):
    ran = score(chat({"messages": MESSAGES}), "--memories", known, "--json")
    assert (ran.status, ran.err) == (0, "")
    found = scores(ran.document)
    assert list(found) == ["tea", "dog"]
    assert min(found.values()) > 0
    assert ran.document["remarks"] == ["memories that stand nowhere in the conversation: cat"]


def test_the_scores_are_those_of_the_same_conversation_in_our_own_format(
    score, chat, write, tmp_path
):
    system, *rest = MESSAGES
    parts = [{"text": "You help.\n"}, {"text": f"- {TEA}\n", "key": "tea"}, {"text": f"- {DOG}"}]
    native = write({**system, "content": parts}, *rest)
    file = chat({"messages": MESSAGES, "memories": {"tea": TEA}})
    options = ("--json", "--full", "--set", f"store.url=sqlite:///{tmp_path}/a.db")
    ours, theirs = score(native, *options).document, score(file, *options).document
    assert ours["matrix"] == theirs["matrix"]
    assert ours["signed"] == theirs["signed"]


@pytest.mark.parametrize("options", [(), ("--full",), ("--finetune",)])
def test_remarks_are_in_the_document_and_above_the_tables(cli, chat, options):
    file = chat({"messages": MESSAGES[1:], "memories": {"tea": "drink"}})
    remark = "the file records no system prompt: where there was one"
    for command in ("score", "plan"):
        arguments = (command, file, *options, "--all", "--set", "server.scorer=toy")
        document = cli(*arguments, "--json").document
        assert [it.startswith(remark) for it in document["remarks"]] == [True]
        assert cli(*arguments).out.startswith(remark)


def test_a_transcript_of_our_own_has_no_remarks(score, talk):
    assert "remarks" not in score(talk, "--json").document


def test_many_remarks_are_cut_on_the_screen_and_whole_in_the_document(
    score, chat, install, command
):
    source = (
        "from mindscore.recognisers import hookimpl\n"
        "@hookimpl\n"
        "def find_memories(role, text, known): raise ValueError(text)\n"
    )
    environment = install(source, "loud = acme_loud", group="mindscore.recognisers")
    asked = [{"role": "user", "content": f"number {at}\x1b[2J"} for at in range(30)]
    file = chat({"messages": [*MESSAGES[:1], *asked, *MESSAGES[-1:]]})
    options = ("score", file, "--set", "server.scorer=toy")
    shown = command(*options, **environment)
    assert "and 21 more remarks: see --json" in shown.out
    assert "\x1b" not in shown.out
    assert len(command(*options, "--json", **environment).document["remarks"]) == 31


def test_words_of_the_user_that_become_a_memory_later_are_no_memory_before(score, chat, tmp_path):
    nuts = "I am allergic to nuts."
    said = [("user", nuts), ("assistant", "Noted, no nuts."), ("system", f"Memories:\n- {nuts}"),
            ("user", "A snack?"), ("assistant", "Fruit, without nuts.")]  # fmt: skip
    file = chat({"messages": [{"role": role, "content": text} for role, text in said]})
    named = tmp_path / "memories.json"
    named.write_text(json.dumps({"nuts": nuts}))
    options = ("--full", "--memories", named, "--json")
    [[before, after]] = score(file, *options).document["signed"]
    assert before == 0.0
    assert after != 0.0
    [[before, _]] = score(file, *options, "--memories-anywhere").document["signed"]
    assert before > 10


def test_one_of_several_conversations_may_be_chosen(score, chat):
    file = chat({"id": "first", "messages": MESSAGES, "memories": {"tea": TEA}},
                {"id": "second", "messages": MESSAGES, "memories": {"dog": DOG}})  # fmt: skip
    assert list(scores(score(file, "--select", "first", "--json").document)) == ["tea"]
    assert list(scores(score(file, "--select", "2", "--json").document)) == ["dog"]
    assert "holds no such conversation" in score(file, "--select", "3").error


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--format", "word"), "there is no such format; there are atif, "),
        (("--format", "native"), "line 1"),
        (("--format", "atif"), "line 1: 'steps'"),
        (("--memories", "nowhere.json"), "nowhere.json: cannot be read"),
        (("--memory", "cat"), "holds no such memory"),
    ],
)
@pytest.mark.parametrize("command", ["score", "plan"])
def test_wrong_usage_is_one_line_and_status_2(cli, chat, command, options, said):
    ran = cli(command, chat({"messages": MESSAGES}), *options, "--set", "server.scorer=toy")
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.error


def test_our_own_format_takes_no_memories(score, talk, known):
    ran = score(talk, "--memories", known)
    assert (ran.status, ran.out) == (2, "")
    assert "which marks its own" in ran.error


def test_the_help_names_the_options(cli):
    for command in ("score", "plan"):
        out = cli(command, "--help").out
        for option in ("--format", "--memories", "--select"):
            assert option in out
