"""The recognisers that are installed: asked in order, believed as far as they hold together."""

import sys
from functools import partial
from types import ModuleType, SimpleNamespace

import pytest

from mindhooks import Role
from mindscore.conversation.conversation import Conversation
from mindscore.conversation.message import Message
from mindscore.recognisers import Block, Entry, MemoryFinder, hookimpl

IMPORT = "from mindscore.recognisers import hookimpl\n"
TEXT = "facts: [tea|rain] end"
GOOD = """
    from mindscore.recognisers import Block, Entry, hookimpl

    class Facts:
        @hookimpl
        def find_memories(self, text):
            start, end = text.find("["), text.find("]") + 1
            if start < 0 or not end:
                return
            facts = text[start + 1 : end - 1].split("|")

            def render(skipped):
                return "[" + "|".join(it for it in facts if it not in skipped) + "]"

            yield Block(start, end, tuple(Entry(it, it) for it in facts), render)
"""


@pytest.fixture
def install(install_extension):
    """Install a distribution with one recogniser: ``install(name, source, target)``."""
    return partial(install_extension, "mindscore.recognisers")


def keys(found):
    return [entry.key for block in found.blocks for entry in block.entries]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (GOOD, ":Facts"),
        (GOOD + "\n    facts = Facts()\n", ":facts"),
        (GOOD + "\n    def make():\n        return Facts()\n", ":make"),
    ],
)
def test_an_installed_recogniser_is_asked(install, source, target):
    install("facts", source, target)
    finder = MemoryFinder()
    found = finder.find("system", TEXT)
    assert finder.remarks == []
    assert keys(found) == ["tea", "rain"]
    assert found.blocks[0].render(frozenset({"tea"})) == "[rain]"


def test_a_module_may_be_a_recogniser(install):
    source = """
        from mindscore.recognisers import Block, Entry, hookimpl

        @hookimpl
        def find_memories(text):
            return [Block(0, 1, (Entry("k", text[0]),), lambda skipped: "" if skipped else text[0])]
    """
    install("whole", source, "")
    assert keys(MemoryFinder().find("system", TEXT)) == ["k"]


def test_a_third_partys_comes_before_the_own_and_takes_what_it_found(install):
    install("facts", GOOD, ":Facts")
    found = MemoryFinder({"mine": "tea|rain", "facts": "facts:"}).find("system", TEXT)
    assert keys(found) == ["facts", "tea", "rain"]
    assert len(found.remarks) == 1
    assert found.remarks[0].startswith("recogniser literal: a block overlaps another")


def test_what_was_found_already_is_not_looked_for_again(install):
    install("facts", GOOD, ":Facts")
    found = MemoryFinder({"tea": "tea", "rain": "rain"}).find("system", f"{TEXT} tea")
    assert keys(found) == ["tea", "rain"]
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("import no_such_module", "", "ModuleNotFoundError"),
        ("raise SystemExit(3)", "", "SystemExit: 3"),
        ("class R:\n    def __init__(self): raise ValueError('no')", ":R", "ValueError: no"),
        ("", ":R", "AttributeError"),
        ("x = 1", "", "it does not implement find_memories"),
        (
            IMPORT + "@hookimpl\ndef find_memories(text, tools): return []",
            "",
            "tools",
        ),
        (
            IMPORT + "@hookimpl\ndef find_memory(text): return []",
            "",
            "find_memory",
        ),
    ],
)
def test_one_that_cannot_be_loaded_is_skipped_and_said(install, source, target, says):
    install("facts", GOOD, ":Facts")
    install("bad", source, target)
    finder = MemoryFinder({"end": "end"})
    assert len(finder.remarks) == 1
    assert finder.remarks[0].startswith("recogniser bad was skipped: ")
    assert says in finder.remarks[0]
    assert keys(finder.find("system", TEXT)) == ["tea", "rain", "end"]


def test_one_with_a_name_of_ours_is_skipped_and_ours_stays(install):
    install("literal", GOOD, ":Facts")
    finder = MemoryFinder({"end": "end"})
    assert "recogniser literal was skipped: another one has this name" in finder.remarks
    assert keys(finder.find("system", TEXT)) == ["end"]


def test_one_object_is_registered_once(install):
    install("facts", GOOD + "\n    facts = Facts()\n", ":facts")
    install("twice", "from facts_of_the_test import facts\n", ":facts")
    finder = MemoryFinder()
    assert finder.remarks == ["recogniser twice was skipped: it is registered under another name"]
    assert keys(finder.find("system", TEXT)) == ["tea", "rain"]


def lie(**changes):
    """Return a block of the whole word "facts" that is wrong in one thing."""
    block = {
        "start": 0,
        "end": 5,
        "entries": (Entry("k", "facts"),),
        "render": lambda skipped: "" if skipped else "facts",
    }
    return Block(**{**block, **changes})


def fails(text):
    raise RuntimeError("two\nlines")


async def later(text):
    return []


@pytest.fixture
def odd(install, monkeypatch):
    """Return a finder that knows "end" and asks one more recogniser, "odd", with a given answer."""

    def make(answer):
        module = ModuleType("odd_answer")
        module.plugin = SimpleNamespace(find_memories=hookimpl(answer))
        monkeypatch.setitem(sys.modules, "odd_answer", module)
        install("odd", "from odd_answer import plugin", ":plugin")
        finder = MemoryFinder({"end": "end"})
        assert finder.remarks == []
        return finder

    return make


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (fails, "failed: RuntimeError: two lines"),
        (lambda text: sys.exit(2), "failed: SystemExit: 2"),
        (lambda text: 5, "failed: TypeError"),
        (lambda text: ["facts"], "found something that is no block: 'facts'"),
        (lambda text: [None], "found something that is no block"),
        (lambda text: [lie(render=lambda skipped: "fact")], "not as its host prints it"),
        (lambda text: [lie(render=lambda skipped: 1 / 0)], "ZeroDivisionError"),
        (
            lambda text: [lie(render=lambda skipped: None if skipped else "facts")],
            "without its memories is no text",
        ),
        (lambda text: [lie(start=-1)], "no part of the message"),
        (lambda text: [lie(end=10_000)], "no part of the message"),
        (lambda text: [lie(start=5)], "no part of the message"),
        (lambda text: [lie(start="0")], "cannot be rendered"),
        (lambda text: [lie(entries=())], "no part of the message"),
        (lambda text: [lie(entries=None)], "cannot be rendered"),
        (lambda text: [lie(entries=(Entry("k", "f"), Entry("k", "g")))], "the same memory twice"),
        (lambda text: [lie(), lie(entries=(Entry("j", "facts"),))], "overlaps another"),
    ],
)
def test_what_does_not_hold_together_stays_plain_and_is_said(odd, answer, says):
    found = odd(answer).find("system", TEXT)
    assert keys(found) in (["end"], ["k", "end"])
    [remark] = found.remarks
    assert remark.startswith("recogniser odd: ")
    assert says in remark
    assert len(remark.splitlines()) == 1


@pytest.mark.filterwarnings("ignore:coroutine 'later' was never awaited")
def test_one_that_is_async_is_said_to_fail(odd):
    found = odd(later).find("system", TEXT)
    assert "recogniser odd: failed: TypeError" in found.remarks[0]


def test_an_interrupt_is_the_users(odd):
    def interrupted(text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        odd(interrupted).find("system", TEXT)


def test_what_is_wrong_is_said_of_the_conversation_once(install, tmp_path):
    install("bad", "import no_such_module", "")
    messages = tuple(Message(Role.USER, f"{it}: <agent_memory>") for it in range(3))
    transcript = Conversation("c", messages).transcript(tmp_path, MemoryFinder())
    assert [it for it in transcript.remarks if "bad" in it] == list(transcript.remarks)
    assert len(transcript.remarks) == 1


def test_a_message_may_bring_its_own_blocks(tmp_path):
    message = Message(Role.USER, TEXT, blocks=(lie(),))
    finder = MemoryFinder({"end": "end"})
    transcript = Conversation("c", (message,)).transcript(tmp_path, finder)
    assert transcript.keys() == ["k"]
    [said] = transcript.conversation
    assert said.text_without(frozenset({"k"})) == TEXT.removeprefix("facts")
