"""Messages printed by a server's chat template: as by the same template in this process."""

import json
import logging
from collections import Counter
from contextlib import aclosing
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mindhooks import MindCommand, Part, Role, ScorerError, ScorerUnavailable
from mindscore.conversation import Message, ToolCall
from mindscore.conversation.choice import begins_unlike, template_for
from mindscore.conversation.conversation import Transcript
from mindscore.conversation.jinja import JinjaTemplate
from mindscore.conversation.template import ChatML, NoTemplateError
from mindscore.measure.memories import skip_all, skip_none
from mindscore.measure.prompts import prompts_for, responses, whole
from mindscore.scorers.remote.auto import AutoScorer
from mindscore.scorers.remote.sglang import SGLangScorer
from mindscore.scorers.remote.vllm import VLLMScorer
from mindscore.scorers.toy import ToyScorer
from mindscore.session.session import Session

from ...imitations import RefusedError, VLLMImitation

HEADER = "{{ '[' + message.role + ']' }}"
REST = (
    "{{ message.content | trim }}{% for call in message.tool_calls or [] %}{{ ' call ' + "
    "call.function.name + ' ' + call.function.arguments | tojson }}{% endfor %}{{ '</s>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
OPENING = "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}"
ADDS = OPENING + "{% for message in messages %}" + HEADER + REST
LOOKS_BACK = (
    "{% set ns = namespace(asked=-1) %}{% for message in messages %}{% if message.role == 'user' "
    "%}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}"
    + OPENING
    + "{% for message in messages %}"
    + HEADER
    + "{% if message.reasoning_content and loop.index0 > ns.asked %}{{ '<think>' + "
    "message.reasoning_content + '</think>' }}{% endif %}" + REST
)
NO_SYSTEM = "{% for message in messages %}{% if message.role not in ('user', 'assistant') %}" + (
    "{{ raise_exception('Only user and assistant') }}{% endif %}" + HEADER + REST
)
BOS = "<s>"


@pytest.fixture(scope="module")
def tokenizer_with_bos(tokenizer_file, tmp_path_factory):
    """A tokenizer that puts a token before every text, unless told not to."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    tokenizer.add_special_tokens([BOS, "</s>"])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    file = tmp_path_factory.mktemp("bos") / "tokenizer.json"
    tokenizer.save(str(file))
    return file


class ChatServer(VLLMImitation):
    """A vLLM whose model has a tokenizer and a chat template.

    ``renders``: the status with which messages are answered; ``loses``: text that is not in what it
    detokenises.
    """

    def __init__(self, file, source, *, renders=200, loses="", **options):
        super().__init__(version="0.31.0", **options)
        self.tokenizer = Tokenizer.from_file(str(file))
        self.template = JinjaTemplate(source, {"bos_token": BOS})
        self.renders = renders
        self.loses = loses
        self.down_at = -1
        self.failures = 0

    async def _answered_with(self, request, body):
        if len(self.requests) == self.down_at:
            self.failures += 1
            raise RefusedError(503, "overloaded")
        return await super()._answered_with(request, body)

    async def tokenize(self, body):
        if "messages" in body and self.renders != 200:
            raise RefusedError(self.renders, "{'loc': 'body.prompt', 'msg': 'Field required'}")
        text = self._rendered(body) if "messages" in body else body["prompt"]
        ids = self.tokenizer.encode(text, add_special_tokens=body["add_special_tokens"]).ids
        return {"count": len(ids), "max_model_len": 1, "tokens": ids, "token_strs": None}

    def _rendered(self, body):
        if not body["messages"]:
            raise RefusedError(400, "Cannot apply chat template to an empty conversation.")
        messages = [json.loads(json.dumps(it)) for it in body["messages"]]
        for message in messages:
            for call in message.get("tool_calls", []):
                if not isinstance(call["function"]["arguments"], str):
                    raise RefusedError(400, "function.arguments: Input should be a valid string")
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
        asks = body["add_generation_prompt"]
        try:
            return self.template.render(messages, asks, body.get("tools", ()))
        except ScorerError as error:
            raise RefusedError(400, str(error)) from error

    async def detokenize(self, body):
        text = self.tokenizer.decode(body["tokens"], skip_special_tokens=False)
        return {"prompt": text.replace(self.loses, "") if self.loses else text}

    def kinds(self):
        """How many requests there were of each kind."""
        asked = [it for it in self.requests if it.path.endswith("tokenize")]
        return Counter("messages" if "messages" in it.body else it.path for it in asked)


class SGLangChat(ChatServer):
    """An SGLang in its place, which knows the roles of OpenAI only.

    ``opens``: each text goes up to where the model speaks next, whatever it is asked for, as before
    0.5.23.
    """

    def __init__(self, *args, opens=False, **options):
        super().__init__(*args, **options)
        self.opens = opens

    async def models(self):
        return {"object": "list", "data": [{"id": "toy", "object": "model", "owned_by": "sglang"}]}

    def _rendered(self, body):
        if any(it["role"] == "memory" for it in body["messages"]):
            raise RefusedError(400, "'role' must be one of 'system', 'assistant', 'tool'")
        opens = self.opens or body["add_generation_prompt"]
        return super()._rendered({**body, "add_generation_prompt": opens})

    async def detokenize(self, body):
        return {"text": (await super().detokenize(body))["prompt"]}


class Local(ToyScorer):
    """The same template and tokenizer, in this process."""

    def __init__(self, file, source):
        super().__init__()
        self._tokenizer = Tokenizer.from_file(str(file))
        self._template = JinjaTemplate(source, {"bos_token": BOS})

    async def tokenize(self, text):
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    async def render_chat(self, messages, add_generation_prompt, tools=()):
        return self._template.render(messages, add_generation_prompt, tools)


def scorer(url, kind=VLLMScorer, **settings):
    """A scorer of the server at ``url``."""
    limits = {"timeout_s": 10, "deadline_s": 20, "max_attempts": 2, "model": "m"}
    return aclosing(kind({"base_url": url, **limits, **settings}))


TOOL = {"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}
MESSAGES = (
    Message(
        Role.SYSTEM,
        "You help. She has tea.",
        parts=(Part("You help.", None), Part(" She has tea.", "tea")),
        id="s",
    ),
    Message(Role.MEMORY, "Her dog is Max .", memory_key="dog", id="m"),
    Message(Role.USER, "How much tea? ", id="u"),
    Message(
        Role.ASSISTANT,
        "",
        (ToolCall("stock", '{"item": "thé 茶", "n": 1.50}', "call_1"),),
        reasoning="I look.",
        id="c",
    ),
    Message(Role.TOOL, "3 tins", tool_call_id="call_1", id="t"),
    Message(Role.ASSISTANT, "Three tins.", reasoning="Three.", id="a"),
    Message(Role.USER, "Who barks?", id="v"),
    Message(Role.ASSISTANT, "Max does.", reasoning="The dog.", id="b"),
)


def talk(messages=MESSAGES, tools=(TOOL,)):
    """A transcript of them."""
    return Transcript(Path("x.json"), messages[:1], messages[1:2], messages[2:], (), tools=tools)


def long_talk(exchanges):
    """A transcript with a memory and as many exchanges."""
    said = [
        message
        for at in range(exchanges)
        for message in (
            Message(Role.USER, f"Question {at}?", id=f"u{at}"),
            Message(Role.ASSISTANT, f"Answer {at}.", id=f"a{at}"),
        )
    ]
    return talk((*MESSAGES[:2], *said), tools=())


async def context_of(it, transcript, tables=None):
    """The context of a conversation, as a session has it, and the remarks on it."""
    template, remarks = await template_for(transcript, it, tables or {}, it.tokenize)
    context = await transcript.context(it.tokenize, template)
    remarks += await template.remarks(transcript.messages)
    return context, [*remarks, *begins_unlike(context, it)]


async def prompts(context):
    """All prompts with every memory, and with none."""
    window = whole(context)
    asked = list(responses(context, window))
    return [await prompts_for(context, window, skip, asked) for skip in (skip_none, skip_all)]


@pytest.mark.parametrize("kind", [VLLMScorer, AutoScorer])
@pytest.mark.parametrize("source", [ADDS, LOOKS_BACK, NO_SYSTEM], ids=["adds", "back", "nosystem"])
async def test_prompts_are_those_of_the_same_template_in_this_process(
    source, kind, tokenizer_with_bos
):
    transcript = talk()
    if source is NO_SYSTEM:
        alone = (*MESSAGES[1:3], *MESSAGES[5:])
        transcript = Transcript(Path("x.json"), (), alone[:1], alone[1:], ())
    mine, said = await context_of(Local(tokenizer_with_bos, source), transcript)
    expected = await prompts(mine)
    async with ChatServer(tokenizer_with_bos, source) as server, scorer(server.url, kind) as it:
        theirs, remarks = await context_of(it, transcript)
        assert await prompts(theirs) == expected
    assert [it for it in remarks if "BOS" not in it] == said
    assert len(expected[0]) == (2 if source is LOOKS_BACK else 1)
    assert expected[0] != expected[1]


@pytest.mark.parametrize("kind", [SGLangScorer, AutoScorer])
async def test_sglang_prints_messages_too(kind, tokenizer_with_bos):
    async def refuses_memories(messages, add_generation_prompt, tools=()):
        if any(it["role"] == "memory" for it in messages):
            raise ScorerError("no such role")
        return await Local.render_chat(local, messages, add_generation_prompt, tools)

    local = Local(tokenizer_with_bos, LOOKS_BACK)
    local.render_chat = refuses_memories
    mine, said = await context_of(local, talk())
    assert any("system messages" in it for it in said)
    async with SGLangChat(tokenizer_with_bos, LOOKS_BACK) as server, scorer(server.url, kind) as it:
        theirs, remarks = await context_of(it, talk())
        assert await prompts(theirs) == await prompts(mine)
    assert remarks == said


async def test_an_sglang_that_always_prints_where_the_model_speaks_next_is_not_believed(
    tokenizer_with_bos,
):
    async with (
        SGLangChat(tokenizer_with_bos, ADDS, opens=True) as server,
        scorer(server.url, SGLangScorer) as it,
    ):
        with pytest.raises(NoTemplateError, match=r"SGLang 0\.5\.23 or later, or set server\.tok"):
            await it.render_chat([{"role": "user", "content": "Hi"}], False)
        context, remarks = await context_of(it, talk())
    [remark] = [it for it in remarks if "use SGLang 0.5.23" in it]
    assert remark.startswith("the messages are printed as ChatML: the server does not say")
    bare = server.tokenizer.decode(context.conversation[0].token_ids, skip_special_tokens=False)
    assert bare == "<|im_start|>user\nHow much tea? <|im_end|>\n"


async def test_messages_are_sent_as_vllm_takes_them(tokenizer_with_bos):
    async with ChatServer(tokenizer_with_bos, ADDS) as server, scorer(server.url) as it:
        await context_of(it, talk())
    trial, *sent = [it.body for it in server.requests if it.body and "messages" in it.body]
    assert trial["messages"] == [{"role": "user", "content": "Hello"}]
    assert {frozenset(it) for it in sent} == {
        frozenset({"model", "messages", "add_generation_prompt", "add_special_tokens", "tools"})
    }
    assert {(it["model"], it["add_special_tokens"]) for it in sent} == {("m", False)}
    assert {it["add_generation_prompt"] for it in sent} == {True, False}
    calls = [call for it in sent for said in it["messages"] for call in said.get("tool_calls", [])]
    assert calls[0] == {
        "id": "call_1",
        "type": "function",
        "function": {"name": "stock", "arguments": '{"item": "thé 茶", "n": 1.5}'},
    }


async def test_requests_grow_as_the_conversation_does_and_are_not_made_twice(tokenizer_with_bos):
    counts = []
    for exchanges in (40, 80):
        async with (
            ChatServer(tokenizer_with_bos, ADDS) as server,
            scorer(server.url, concurrency=3) as it,
        ):
            await context_of(it, long_talk(exchanges))
            counts.append(len(server.requests))
            rendered = server.kinds()["messages"]
            await context_of(it, long_talk(exchanges))
            assert server.kinds()["messages"] == rendered
            assert server.most_under_way == 3
    assert counts[1] < 2.1 * counts[0]
    assert counts[1] < 15 * 160


async def test_texts_are_forgotten_where_they_are_many(tokenizer_with_bos, monkeypatch):
    monkeypatch.setattr("mindscore.scorers.remote.chat.CACHED_CHARACTERS", 60)
    first, second = ([{"role": "user", "content": it * 40}] for it in "ab")
    async with ChatServer(tokenizer_with_bos, ADDS) as server, scorer(server.url) as it:
        for messages in (first, first, second, second, first):
            assert messages[0]["content"] in await it.render_chat(messages, True)
    assert server.kinds()["messages"] == 3


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_a_server_that_renders_no_messages_gets_chatml_and_that_is_said(
    status, tokenizer_with_bos
):
    async with (
        ChatServer(tokenizer_with_bos, ADDS, renders=status) as server,
        scorer(server.url) as it,
    ):
        context, remarks = await context_of(it, talk())
    chatml = await ChatML().pieces(MESSAGES)
    ids = [await Local(tokenizer_with_bos, ADDS).tokenize(it.text()) for it in chatml]
    nodes = (*context.system, *context.identity, *context.conversation)
    assert [list(it.token_ids) for it in nodes] == ids
    [remark] = [it for it in remarks if "set server.tokenizer to the folder" in it]
    assert remark.startswith("the messages are printed as ChatML: the server does not render")
    assert f"{server.url}/tokenize: HTTP {status}" in remark


async def test_a_server_that_is_down_is_not_one_that_renders_no_messages(tokenizer_with_bos):
    async with (
        ChatServer(tokenizer_with_bos, ADDS, renders=503) as server,
        scorer(server.url) as it,
    ):
        with pytest.raises(ScorerUnavailable):
            await context_of(it, talk())


async def test_a_template_that_refuses_the_messages_is_quoted(tokenizer_with_bos):
    async with ChatServer(tokenizer_with_bos, NO_SYSTEM) as server, scorer(server.url) as it:
        with pytest.raises(ScorerError, match="Only user and assistant"):
            await context_of(it, talk())


async def test_ids_that_are_not_those_of_their_text_are_refused(tokenizer_with_bos):
    async with (
        ChatServer(tokenizer_with_bos, ADDS, loses=" .") as server,
        scorer(server.url) as it,
    ):
        with pytest.raises(ScorerError, match="are not those of their text"):
            await context_of(it, talk())


@pytest.mark.parametrize("has_template", [True, False])
async def test_a_template_beside_the_tokenizer_is_used_before_the_servers(
    has_template, tokenizer_with_bos, tmp_path
):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_with_bos.read_bytes())
    if has_template:
        (tmp_path / "chat_template.jinja").write_text(ADDS.replace("{{ bos_token }}", BOS))
    expected = await prompts((await context_of(Local(tokenizer_with_bos, ADDS), talk()))[0])
    async with (
        ChatServer(tokenizer_with_bos, ADDS) as server,
        scorer(server.url, tokenizer=str(tmp_path)) as it,
    ):
        assert await prompts((await context_of(it, talk()))[0]) == expected
    assert set(server.kinds()) == (set() if has_template else {"messages", "/tokenize"})
    # Of texts the file's is used: the server says only what it puts before them.
    texts = [it.body["prompt"] for it in server.requests if it.body and "prompt" in it.body]
    assert texts == ([] if has_template else [""])


async def test_a_bos_that_the_servers_template_does_not_print_is_said(tokenizer_with_bos):
    without = ADDS.replace("{{ bos_token }}", "")
    for source in (ADDS, without):
        async with ChatServer(tokenizer_with_bos, source) as server, scorer(server.url) as it:
            _, remarks = await context_of(it, talk())
        assert any("(BOS), which m expects" in it for it in remarks) is (source is without)


@pytest.mark.parametrize("at", [3, 5, 9, 17])
async def test_a_server_that_is_down_for_a_moment_is_asked_again(
    at, tokenizer_with_bos, tmp_path, caplog
):
    caplog.set_level(logging.ERROR)
    tables = {
        "server": {"scorer": "vllm", "model": "m", "self_test": False, "concurrency": 1},
        "store": {"url": f"sqlite:///{tmp_path}/s.db"},
    }

    async def found(down_at):
        async with ChatServer(tokenizer_with_bos, LOOKS_BACK) as server:
            server.down_at = down_at
            tables["server"]["base_url"] = server.url
            async with Session(talk()).open(tables) as session:
                context = await session.context()
                return await prompts(context), session.remarks, server.failures

    expected, remarks, _ = await found(-1)
    assert await found(at) == (expected, remarks, 1)


async def test_a_command_scores_by_the_servers_template(tokenizer_with_bos, tmp_path):
    tables = {"server": {"scorer": "vllm", "model": "m", "self_test": False}}
    tables["store"] = {"url": f"sqlite:///{tmp_path}/s.db"}
    async with ChatServer(tokenizer_with_bos, LOOKS_BACK) as server:
        tables["server"]["base_url"] = server.url
        async with Session(talk()).open(tables) as session:
            await session.run(MindCommand.SCORE_FULL)
    assert set(session.scores) == {"tea", "dog"}
    assert session.scores["dog"].score > 0
