"""Templates of real models: each response behind the very prompt that a server makes for it."""

import asyncio
import importlib.resources
import json

import pytest

from mindhooks import Part, Role, ScorerError, ScorerUnavailable
from mindscore._util.errors import ConfigError
from mindscore.conversation import Conversation, Message, ToolCall
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.jinja import JinjaTemplate, template_in
from mindscore.conversation.own_template import OwnTemplate
from mindscore.recognisers import MemoryFinder

pytest.importorskip("trl", reason="it carries the templates")

# What the package has from the models' own repositories.
NAMES = [
    *("cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "gemma4"),
    *("glm4moe", "gptoss", "lfm2", "llama3", "llama3_1", "llama3_2", "nemotron_3_nano", "phi3"),
    *("qwen2_5", "qwen3", "qwen3_5_nothink", "qwen3_5_think", "qwen3_6", "qwen3_8"),
    *("qwen3_instruct_2507", "smolvlm"),
]
FOLDER = importlib.resources.files("trl") / "chat_templates"
CALL = ToolCall("stock", '{"item": "oak glue"}', "call_0001")
TOOL = {
    "type": "function",
    "function": {"name": "stock", "description": "How much is left.", "parameters": {}},
}
ASKED, ANSWER = Message(Role.USER, "Which glue?", id="u"), Message(Role.ASSISTANT, "Oak.", id="a")
AGAIN = (Message(Role.USER, "Sure?", id="v"), Message(Role.ASSISTANT, "Yes, oak.", id="b"))
SYSTEM = Message(Role.SYSTEM, "You help Ines.", id="s")
MEMORY = Message(Role.MEMORY, "She uses oak glue.", memory_key="glue", id="m")
THOUGHT = "<think>\nnotes say {}\n</think>\n\n{}"

CASES = {
    "plain": (ASKED, ANSWER, *AGAIN),
    "system": (SYSTEM, ASKED, ANSWER, *AGAIN),
    "tool call": (
        SYSTEM,
        ASKED,
        Message(Role.ASSISTANT, "", (CALL,), id="c"),
        Message(Role.TOOL, "3 tins", tool_call_id="call_0001", name="stock", id="t"),
        ANSWER,
        *AGAIN,
    ),
    "memory in the system prompt": (
        Message(
            Role.SYSTEM,
            "You help Ines. She uses oak glue.",
            parts=(Part("You help Ines.", None), Part(" She uses oak glue.", "glue")),
            id="s",
        ),
        ASKED,
        ANSWER,
        *AGAIN,
    ),
    "memory as a message": (SYSTEM, MEMORY, ASKED, ANSWER, *AGAIN),
    "thinking": (
        ASKED,
        Message(Role.ASSISTANT, THOUGHT.format("oak", "Oak."), id="a"),
        AGAIN[0],
        Message(Role.ASSISTANT, THOUGHT.format("sure", "Yes, oak."), id="b"),
    ),
}
REFUSED = {
    # They refuse these themselves, and so does a server.
    ("cohere", "tool call"), ("cohere2", "tool call"), ("deepseekv3", "tool call"),
    ("gemma", "system"), ("gemma", "tool call"), ("gemma", "memory in the system prompt"),
    ("gemma", "memory as a message"), ("gemma3", "tool call"), ("smolvlm", "tool call"),
    # It closes the thought before the model speaks: this response cannot be its own.
    ("qwen3_5_nothink", "thinking"),
}  # fmt: skip


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\\n{{ m.content }}<|im_end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\\n{% endif %}"
)


def jinja(name):
    """Return the template called ``name``."""
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return JinjaTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})


def own(template):
    """Return ``template`` as a scorer renders it."""

    async def render(messages, asks, tools=()):
        return template.render(messages, asks, tools)

    return OwnTemplate(render)


async def tokenize(text):
    """Return a token for each character: what is compared is text, to the last one."""
    return [ord(character) for character in text]


def text_of(ids):
    return "".join(map(chr, ids))


def transcript(messages, tools=()):
    """Return ``messages`` with the memories that they have."""
    at = next(at for at, it in enumerate(messages) if it.role == Role.USER)
    before, system = messages[:at], tuple(it for it in messages[:at] if it.role == Role.SYSTEM)
    identity = tuple(it for it in before if it not in system)
    return Transcript("file", system, identity, tuple(messages[at:]), tools=tools)


async def spoken(context, skip=lambda _: False):
    """Return each response's prompt and body as texts, by its id."""
    found = {}
    for prompt in await context.wire_prompts(range(len(context.conversation)), skip):
        for node_id, (start, end) in zip(prompt.node_ids, prompt.ranges, strict=True):
            assert node_id not in found
            found[node_id] = text_of(prompt.tokens[:start]), text_of(prompt.tokens[start:end])
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
async def test_each_response_stands_behind_the_servers_own_prompt(name, case):
    template, messages = jinja(name), CASES[case]
    tools = (TOOL,) if case == "tool call" else ()
    by = own(template)
    if (name, case) in REFUSED:
        with pytest.raises(ScorerError, match="chat template"):
            await transcript(messages, tools).context(tokenize, by)
        return
    context = await transcript(messages, tools).context(tokenize, by)
    for skipped in (frozenset(), frozenset({"glue"})):
        kept = [
            Message(it.role, it.text_without(skipped), id=it.id) if it.parts else it
            for it in messages
            if it.memory_key not in skipped
        ]
        found = await spoken(context, skipped.__contains__)
        for at, message in enumerate(kept):
            if message.role != Role.ASSISTANT or (message.tool_calls and message.id not in found):
                continue
            prompt, body = found[message.id]
            # As vLLM calls it: the messages before the response, up to where the model speaks.
            asked = template.render(by.place.messages(kept[:at]), True, tools)
            assert prompt.startswith(asked)
            # Behind it comes at most an empty thought, which the model did not produce.
            assert "".join(prompt[len(asked) :].split()) in ("", "<think></think>", "</think>")
            said = message.text.rpartition("</think>")[2].strip()
            assert said in body or CALL.name in body
            assert said or "oak glue" in body
            if "<think>" in message.text:
                assert message.text.partition("</think>")[0].partition("<think>")[2].strip() in body


async def test_a_memory_that_is_a_message_keeps_its_role_where_roles_are_printed_as_they_are():
    for name, where in {"llama3_1": "memory", "qwen2_5": "system", "gemma3": "user"}.items():
        by = own(jinja(name))
        await transcript(CASES["memory as a message"]).context(tokenize, by)
        assert by.place.role == where
        remarks = await by.remarks(CASES["memory as a message"])
        assert [where in it for it in remarks] == ([] if where == "memory" else [True])


async def test_responses_share_a_prompt_where_the_template_only_adds_to_it():
    for name, number in {"llama3_1": 1, "qwen3": 2, "phi3": 1}.items():
        context = await transcript(CASES["plain"]).context(tokenize, own(jinja(name)))
        prompts = await context.wire_prompts(range(4), lambda _: False)
        assert len(prompts) == number, name


async def test_only_the_responses_that_are_asked_for_are_rendered():
    context = await transcript(CASES["plain"]).context(tokenize, own(jinja("qwen3")))
    [prompt] = await context.wire_prompts(range(4), lambda _: False, {"b"})
    assert prompt.node_ids == ("b",)
    [early] = await context.wire_prompts(range(2), lambda _: False)
    assert early.node_ids == ("a",)


async def test_reasoning_that_is_kept_apart_is_what_the_model_produced():
    talk = (ASKED, Message(Role.ASSISTANT, "Oak.", reasoning="notes say oak", id="a"))
    by = own(jinja("qwen3"))
    found = await spoken(await transcript(talk).context(tokenize, by))
    assert found["a"][1] == "<think>\nnotes say oak\n</think>\n\nOak.<|im_end|>"
    assert await by.remarks(talk) == []
    plain = own(jinja("llama3"))
    await transcript(talk).context(tokenize, plain)
    [remark] = await plain.remarks(talk)
    assert remark.startswith("the reasoning of 1 response is left out")


async def test_definitions_of_tools_are_printed_by_a_template_that_knows_them():
    talk = CASES["tool call"]
    by = own(jinja("qwen2_5"))
    found = await spoken(await transcript(talk, (TOOL,)).context(tokenize, by))
    assert "How much is left." in found["c"][0]
    assert await by.remarks(talk) == []
    silent = own(jinja("llama3"))
    await transcript(talk, (TOOL,)).context(tokenize, silent)
    assert any("definitions of the tools" in it for it in await silent.remarks(talk))


def test_a_long_conversation_takes_time_in_proportion_to_its_length():
    template, calls = jinja("llama3_1"), []

    async def render(messages, asks, tools=()):
        calls.append(len(messages))
        return template.render(messages, asks, tools)

    def talk(length):
        pairs = [
            (
                Message(Role.USER, f"Question {n}?", id=f"u{n}"),
                Message(Role.ASSISTANT, "A.", id=f"a{n}"),
            )
            for n in range(length // 2)
        ]
        return Conversation("c", (SYSTEM, *(it for pair in pairs for it in pair)))

    rendered = {}
    for length in (200, 800):
        calls.clear()
        made = talk(length).transcript("file", MemoryFinder())
        asyncio.run(made.context(tokenize, OwnTemplate(render)))
        rendered[length] = sum(calls)
    assert rendered[800] < 5 * rendered[200]


async def test_the_date_of_the_day_is_said_where_the_template_prints_it():
    dated = own(JinjaTemplate("{{ strftime_now('%d %b %Y') }}" + CHATML, {}))
    await transcript(CASES["plain"]).context(tokenize, dated)
    [remark] = await dated.remarks(CASES["plain"])
    assert "today's date" in remark


def folder_of(tmp_path, **files):
    """Write the files of a tokenizer's folder, and return that."""
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return tmp_path


def test_a_folders_template_is_the_file_of_its_own_else_that_of_the_tokenizer(tmp_path):
    assert template_in(tmp_path) is None
    bos = {"bos_token": {"content": "<s>"}}
    named = [
        {"name": "default", "template": "{{ bos_token }}plain"},
        {"name": "tool_use", "template": "tools"},
    ]
    folder = folder_of(tmp_path, tokenizer_config__json={**bos, "chat_template": named})
    several = template_in(folder)
    assert several.render([], False) == "<s>plain"
    assert several.render([], False, [TOOL]) == "tools"
    folder_of(tmp_path, chat_template__jinja="{{ bos_token }}alone")
    assert template_in(folder).render([], False) == "<s>alone"
    folder_of(tmp_path, tokenizer_config__json="{")
    with pytest.raises(ConfigError, match=r"tokenizer_config\.json"):
        template_in(folder)


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ raise_exception('no') }}", "{{ messages[7].content }}"]
)
def test_a_template_that_fails_is_an_error_in_words(source):
    with pytest.raises(ScorerError, match="the chat template: "):
        JinjaTemplate(source, {}).render([], False)


@pytest.mark.parametrize("at", range(1, 12))
async def test_a_server_that_is_down_changes_nothing_of_how_messages_are_printed(at):
    template, calls = JinjaTemplate(CHATML, {}), 0

    async def render(messages, asks, tools=()):
        nonlocal calls
        calls += 1
        if calls == at:
            raise ScorerUnavailable("down for a moment")
        return template.render(messages, asks, tools)

    with pytest.raises(ScorerUnavailable):
        await transcript(CASES["memory as a message"]).context(tokenize, OwnTemplate(render))


def test_definitions_of_tools_are_given_to_templates_as_vllm_gives_them():
    template = JinjaTemplate("{{ tools | tojson }}", {})
    given = [
        {"type": "function", "function": {"parameters": {}, "strict": True, "name": "a"}},
        {"type": "function", "function": {"name": "b", "description": "B."}},
    ]
    assert template.render([], False, given) == (
        '[{"type": "function", "function": {"name": "a", "description": null, "parameters": {}, '
        '"strict": true}}, {"type": "function", "function": {"name": "b", "description": "B.", '
        '"parameters": null}}]'
    )
