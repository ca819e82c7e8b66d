"""Prompts without memories, and of a part of a conversation, are those that the template prints."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import MindhooksError, Part, Role, ScorerError
from mindscore.conversation import Message, ToolCall
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.jinja import JinjaTemplate
from mindscore.conversation.own_template import OwnTemplate
from mindscore.measure.memories import responses_after_change
from mindscore.measure.prompts import RowFingerprints

EACH = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
ASKS = "{% if add_generation_prompt %}<assistant>{% endif %}"
BEFORE = "{% set before = messages[loop.index0 - 1].role if loop.index0 else '' %}"

TEMPLATES = {
    "adds": EACH + ASKS,
    "begins": "[BEGIN]" + EACH + ASKS,
    "system prompt of its own": (
        "{% if messages and messages[0].role != 'system' %}<system>Help.</s>{% endif %}"
        + EACH
        + ASKS
    ),
    "merges equal roles": (
        "{% for m in messages %}"
        + BEFORE
        + "{{ '+' if before == m.role else '<' ~ m.role ~ '>' }}{{ m.content }}</s>{% endfor %}"
        + ASKS
    ),
    "says what was reminded": (
        "{% for m in messages %}"
        + BEFORE
        + "{% if before == 'memory' %}[reminded]{% endif %}<{{ m.role }}>{{ m.content }}</s>"
        "{% endfor %}" + ASKS
    ),
    "first one is told to users": (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'user' and messages[0].role == 'memory' %}{{ messages[0].content }}"
        "{% endif %}{{ m.content }}</s>{% endfor %}" + ASKS
    ),
    "counts users": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}"
        "{% if m.role == 'user' %}{% set ns.n = ns.n + 1 %}{% endif %}"
        "<{{ m.role }} {{ ns.n }}>{{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<assistant {{ ns.n }}>{% endif %}"
    ),
    "drops empty ones": (
        "{% for m in messages if m.content %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}" + ASKS
    ),
}


async def tokenize(text):
    """Return a token for each character, and one for two line ends or blanks, as tokenizers do."""
    ids, at = [], 0
    while at < len(text):
        long = 2 if text[at : at + 2] in ("\n\n", "  ", " \n") else 1
        ids.append(sum(ord(it) << (16 * n) for n, it in enumerate(text[at : at + long])))
        at += long
    return ids


def text_of(ids):
    return "".join(chr(it & 0xFFFF) + (chr(it >> 16) if it >> 16 else "") for it in ids)


def own(template):
    async def render(messages, asks, tools=()):
        return template.render(messages, asks, tools)

    return OwnTemplate(render)


def say(role, text, id_, key=None):
    return Message(Role(role), text, memory_key=key, id=id_)


def without(message, skipped):
    """Return the message without the memories ``skipped``, or ``None``."""
    if message.memory_key in skipped:
        return None
    text = "".join(it.text for it in message.parts if it.memory_key not in skipped)
    return Message(message.role, text, id=message.id) if message.parts else message


async def compare(source, before, talk):
    """Compare every prompt with the template's own; return those of the whole conversation."""
    template = JinjaTemplate(source, {})
    by = own(template)
    system = tuple(it for it in before if it.role == Role.SYSTEM)
    identity = tuple(it for it in before if it.role == Role.MEMORY)
    given = Transcript("file", system, identity, tuple(talk))
    context = await given.context(tokenize, by)
    keys = given.keys()
    sets = [frozenset(), frozenset(keys)]
    sets += [it for key in keys for it in (frozenset({key}), frozenset(keys) - {key})]
    compared = 0
    for start in range(len(talk)):
        window, all_of_them = range(start, len(talk)), {}
        for skipped in sets:
            shown = [without(it, skipped) for it in (*system, *identity, *talk[start:])]
            kept = [it for it in shown if it is not None]
            found = {}
            for prompt in await context.wire_prompts(window, skipped.__contains__):
                for id_, (first, last) in zip(prompt.node_ids, prompt.ranges, strict=True):
                    found[id_] = prompt.tokens[:first], prompt.tokens[first:last]
            for at, message in enumerate(kept):
                # Nothing at all before it: a part of a conversation that no server has seen.
                if at and message.role == Role.ASSISTANT and message.id in found:
                    asked = template.render(by.place.messages(kept[:at]), True)
                    assert text_of(found[message.id][0]) == asked, (start, skipped)
                    assert list(found[message.id][0]) == await tokenize(asked), (start, skipped)
                    compared += 1
            all_of_them = all_of_them or found
            changed = responses_after_change(context, window, skipped.__contains__)
            for id_ in found.keys() - changed:
                assert found[id_] == all_of_them[id_], (start, skipped)
    assert compared
    return context


U, A = say("user", "Which glue?", "u"), say("assistant", "Oak.", "a")
V, B = say("user", "Sure?", "v"), say("assistant", "Yes, oak.", "b")
M, N = say("memory", "Oak glue.", "m", "glue"), say("memory", "Teak oil.", "n", "oil")
PARTED = Message(
    Role.USER, "Sure? Oak glue.", parts=(Part("Sure?", None), Part(" Oak glue.", "glue")), id="v"
)


@pytest.mark.parametrize(
    ("template", "before", "talk"),
    [
        ("begins", (), (U, A, N, V, B)),
        ("system prompt of its own", (), (U, A, N, V, B)),
        ("system prompt of its own", (M,), (U, A, N, V, B)),
        ("begins", (N,), (U, A, PARTED, B)),
        ("merges equal roles", (M, N), (U, A, V, B)),
        ("merges equal roles", (M,), (U, A, N, V, B)),
        ("merges equal roles", (), (U, M, V, A, N, B)),
        ("says what was reminded", (), (U, A, N, PARTED, B)),
        ("first one is told to users", (), (U, A, N, V, B)),
        ("counts users", (), (U, A, N, V, B)),
        ("counts users", (), (say("memory", "", "m", "glue"), U, A, V, B)),
        ("drops empty ones", (M,), (U, A, PARTED, B)),
    ],
)
async def test_no_prompt_differs_from_what_the_template_prints(template, before, talk):
    await compare(TEMPLATES[template], before, talk)


async def test_what_a_template_opens_with_is_of_no_message():
    context = await compare(TEMPLATES["begins"], (), (M, U, A, V, B))
    assert context.prompts is None
    assert [text_of(it.token_ids) for it in context.system] == ["[BEGIN]"]
    assert context.conversation[0].token_ids == tuple(await tokenize("<memory>Oak glue.</s>"))


async def test_tokens_are_compared_where_messages_meet_without_a_memory():
    # With the memory in between, no blank follows another one.
    lines = "{% for m in messages %}{{ m.content }}{% endfor %}"
    talk = (say("user", "Which? ", "u"), M, say("user", " Sure?", "v"), A)
    before = (say("system", "You help.", "s"),)
    assert (await compare(lines, before, talk)).prompts is not None


texts = st.text("ab\n ", max_size=4)
memories = st.builds(
    lambda text, key: say("memory", text, "", key), texts, st.sampled_from(["x", "y", "z"])
)
users = st.builds(lambda text: say("user", text, ""), texts)
parted = st.builds(
    lambda text, key: Message(
        Role.USER, f"{text}a b", parts=(Part(f"{text}a", None), Part(" b", key))
    ),
    texts,
    st.sampled_from(["x", "y"]),
)
responses = st.builds(lambda text: say("assistant", text or "Yes.", ""), texts)
turns = st.lists(st.one_of(memories, users, parted, responses), max_size=7)


@given(st.sampled_from(sorted(TEMPLATES)), st.lists(memories, max_size=2), st.booleans(), turns)
def test_no_conversation_has_a_prompt_that_its_template_does_not_print(
    name, before, has_system, turns
):
    talk = [say("user", "Hello", ""), *turns, say("assistant", "Bye.", "")]
    first = [say("system", "You help.", "")] if has_system else []
    named = [
        Message(it.role, it.text, memory_key=it.memory_key, parts=it.parts, id=f"n{at}")
        for at, it in enumerate([*first, *before, *talk])
    ]
    count = len(named) - len(talk)
    try:
        asyncio.run(compare(TEMPLATES[name], named[:count], named[count:]))
    except ScorerError as error:
        # Two responses in a row, merged into one.
        assert (name, "does not print a response" in str(error)) == ("merges equal roles", True)  # noqa: PT017


async def test_a_header_that_is_printed_once_a_response_is_given_is_none_of_it():
    # Behind a tool's result the model goes on at once; printed later, it has a header.
    source = (
        EACH
        + "{% if add_generation_prompt and messages[-1].role != 'tool' %}<assistant>"
        + ("{% endif %}")
    )
    talk = (
        U,
        Message(Role.ASSISTANT, "Look.", (ToolCall("stock", "{}", "c"),), id="c"),
        Message(Role.TOOL, "3 tins", tool_call_id="c", id="t"),
        A,
    )
    context = await Transcript("file", (), (), talk).context(
        tokenize, own(JinjaTemplate(source, {}))
    )
    bodies = {
        id_: text_of(it.tokens[slice(*span)])
        for it in await context.wire_prompts(range(4), lambda _: False)
        for id_, span in zip(it.node_ids, it.ranges, strict=True)
    }
    assert bodies == {"c": "Look.</s>", "a": "Oak.</s>"}


async def test_a_template_that_needs_a_memory_refuses_only_what_is_without_it():
    source = "{% if messages[0].role == 'user' %}{{ raise_exception('no memory') }}{% endif %}"
    given = Transcript("file", (), (M, N), (U, A))
    context = await given.context(tokenize, own(JinjaTemplate(source + EACH + ASKS, {})))
    assert await context.wire_prompts(range(2), {"oil"}.__contains__)
    with pytest.raises((MindhooksError, ScorerError), match="no memory"):
        await context.wire_prompts(range(2), {"oil", "glue"}.__contains__)


async def test_a_row_of_the_matrix_is_of_all_that_the_template_prints():
    async def fingerprint(begins, tools=()):
        template = own(JinjaTemplate(begins + "{{ tools or '' }}" + TEMPLATES["counts users"], {}))
        given = Transcript("file", (), (M,), (U, A, V, B), tools=tools)
        context = await given.context(tokenize, template)
        assert context.prompts is not None
        return RowFingerprints(context).of("glue")

    tool = {"type": "function", "function": {"name": "stock"}}
    found = [await fingerprint("a"), await fingerprint("b"), await fingerprint("a", (tool,))]
    assert len(set(found)) == 3
    assert await fingerprint("a") == found[0]
