"""``server.chat_template``: ChatML, and a model's own template taken apart exactly."""

import asyncio
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindhooks import Role, ScorerError
from mindscore.conversation import Conversation, Message, ToolCall
from mindscore.conversation.own_template import OwnTemplate
from mindscore.conversation.template import ChatML, LooksBackError
from mindscore.recognisers import MemoryFinder
from mindscore.scorers.toy import ToyScorer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA = (
    "<s>{% for m in messages %}<|h|>{{ m.role }}<|e|>\n\n{{ m.content | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|h|>assistant<|e|>\n\n{% endif %}"
)
HERMES_TOOLS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<{{ c.function.name }}:{{ c.function.arguments }}>"
    "{% endfor %}[/]{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
MERGES_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'user' %}[I]{% if loop.index0 == 1 %}"
    "{{ messages[0].content }} {% endif %}{{ m.content }}[/I]{% elif m.role == 'assistant' %}"
    "{{ m.content }}</s>{% endif %}{% endfor %}"
)
DROPS_THOUGHTS = (
    "{% for m in messages %}[{{ m.role }}]"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('|')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}[/]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ONE_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' and not loop.first %}"
    "{{ raise_exception('system must come first') }}{% endif %}[{{ m.role }}]{{ m.content }}[/]"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)

TALK = [
    Message(Role.SYSTEM, "You help."),
    Message(Role.MEMORY, "Nora drinks tea."),
    Message(Role.USER, "What shall I drink?"),
    Message(Role.ASSISTANT, "Tea."),
    Message(Role.USER, "Thanks."),
    Message(Role.ASSISTANT, "Any time."),
]


def own(template):
    """Return a template as a model brings it."""

    def refuse(message):
        raise jinja2.TemplateError(message)

    compiled = jinja2.Environment(autoescape=False).from_string(template)

    async def render(messages, asks, tools=()):
        return compiled.render(
            messages=messages, add_generation_prompt=asks, raise_exception=refuse, tools=tools
        )

    return OwnTemplate(render)


async def pieces_of(template, messages):
    """Return the pieces of ``messages`` by ``template``."""
    await template.begin(messages, ())
    return await template.pieces(messages)


async def test_chatml_names_each_role_and_ends_the_response_with_its_turn():
    pieces = await ChatML().pieces(TALK)
    assert "".join(it.text() for it in pieces).startswith(
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>memory\nNora drinks tea.<|im_end|>\n"
    )
    assert pieces[3].header == ("<|im_start|>assistant\n",)
    assert pieces[3].content == ("Tea.", "<|im_end|>")
    assert pieces[3].tail == ("\n",)


async def test_chatml_says_tool_calls_behind_the_text():
    call = ToolCall("look", '{"at": "sky"}')
    [alone, both] = await ChatML().pieces(
        [Message(Role.ASSISTANT, "", (call,)), Message(Role.ASSISTANT, "So.", (call,))]
    )
    printed = '<tool_call>\n{"name": "look", "arguments": {"at": "sky"}}\n</tool_call>'
    assert alone.content == (printed, "<|im_end|>")
    assert both.content == (f"So.\n{printed}", "<|im_end|>")


@pytest.mark.parametrize(
    "template", [CHATML, LLAMA, HERMES_TOOLS], ids=["chatml", "llama", "tools"]
)
async def test_pieces_of_a_models_own_template_add_up_to_its_prompt(template):
    taken_apart = own(template)
    pieces = await pieces_of(taken_apart, TALK)
    assert "".join(it.text() for it in pieces) == await taken_apart.text(TALK, False)
    for at in (3, 5):
        before = "".join(it.text() for it in pieces[:at])
        asked = await taken_apart.text(TALK[:at], True)
        assert before + "".join(pieces[at].header) == asked
        assert pieces[at].content[0].startswith(TALK[at].text)


async def test_a_response_ends_with_its_end_of_turn_and_not_the_newline_behind_it():
    pieces = await pieces_of(own(CHATML), TALK)
    assert pieces[3] == (("<|im_start|>assistant\n",), ("Tea.<|im_end|>",), ("\n",))
    assert (await pieces_of(own(LLAMA), TALK))[3] == (
        ("<|h|>assistant<|e|>\n\n",),
        ("Tea.<|eot|>",),
        (),
    )


async def test_a_message_without_its_memories_is_rendered_in_its_place():
    template = own(CHATML)
    await template.begin(TALK, ())
    variant = await template.piece(TALK[:2], Message(Role.USER, "Drink?"))
    assert variant.text() == "<|im_start|>user\nDrink?<|im_end|>\n"


@pytest.mark.parametrize("template", [CHATML, LLAMA], ids=["chatml", "llama"])
async def test_a_printed_memory_is_left_out_by_the_models_own_template(template):
    async def context(system):
        messages = (Message(Role.USER, "Hello"), Message(Role.SYSTEM, system), *TALK[2:4])
        transcript = Conversation("c", messages).transcript(Path("c"), MemoryFinder({"tea": "Tea"}))
        return await transcript.context(ToyScorer().tokenize, own(template))

    found, bare = await context("You help.\n- Tea\n- Dog"), await context("You help.\n- Dog")
    without = found.wire_prompt(range(4), lambda key: key == "tea")
    assert without.tokens == bare.wire_prompt(range(4), lambda _: False).tokens


async def test_a_template_that_refuses_the_conversation_is_refused_with_its_reason():
    template = own("{% for m in messages %}{{ raise_exception('no ' ~ m.role) }}{% endfor %}")
    with pytest.raises(ScorerError, match="no system"):
        await template.begin(TALK, ())


@pytest.mark.parametrize("template", [DROPS_THOUGHTS, MERGES_SYSTEM], ids=["drops", "merges"])
async def test_a_template_that_changes_what_it_printed_has_no_pieces(template):
    talk = [replace(it, text=f"thought|{it.text}") for it in TALK]
    with pytest.raises(LooksBackError):
        await pieces_of(own(template), talk)


async def test_tool_calls_that_the_template_does_not_print_are_no_response_and_said():
    talk = [
        Message(Role.USER, "Look.", id="u"),
        Message(Role.ASSISTANT, "", (ToolCall("look", "{}"),), id="a"),
    ]
    silent = own(CHATML)
    assert (await pieces_of(silent, talk))[1].content == ("",)
    [remark] = await silent.remarks(talk)
    assert "tool calls of 1 response are left out" in remark
    loud = own(HERMES_TOOLS)
    assert "<look:{}>" in (await pieces_of(loud, talk))[1].text()
    assert await loud.remarks(talk) == []


roles = st.sampled_from(list(Role))
talks = st.lists(st.builds(Message, roles, st.text(), st.just(())), max_size=6)


@given(talks, st.sampled_from([CHATML, HERMES_TOOLS]))
def test_leaving_a_memory_out_is_what_the_template_says_without_it(talk, template):
    async def compare():
        taken_apart = own(template)
        pieces = await pieces_of(taken_apart, talk)
        for left_out, message in enumerate(talk):
            if message.role == Role.MEMORY:
                kept = [at for at in range(len(talk)) if at != left_out]
                without = await pieces_of(taken_apart, [talk[at] for at in kept])
                assert without == [pieces[at] for at in kept]

    asyncio.run(compare())


@pytest.mark.model
async def test_the_real_models_own_template_agrees_with_its_tokenizer(tmp_path):
    from mindscore.conversation.native import read_transcript
    from mindscore.scorers.local.scorer import LocalScorer

    file = tmp_path / "talk.jsonl"
    file.write_text(
        '{"role":"system","content":"You help."}\n'
        '{"role":"user","content":"What shall I drink?"}\n'
        '{"role":"assistant","content":"Tea."}\n',
        encoding="utf-8",
    )
    scorer = LocalScorer({})
    context = await read_transcript(file).context(scorer.tokenize, OwnTemplate(scorer.render_chat))
    whole = await scorer.render_chat(
        [
            {"role": "system", "content": "You help."},
            {"role": "user", "content": "What shall I drink?"},
            {"role": "assistant", "content": "Tea."},
        ],
        False,
    )
    prompt = context.wire_prompt(range(2), lambda _: False)
    assert list(prompt.tokens) == await scorer.tokenize(whole)
    [(start, end)] = prompt.ranges
    assert await scorer.detokenize(prompt.tokens[start:end]) == "Tea.<|im_end|>"
    await scorer.aclose()
