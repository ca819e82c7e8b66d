"""What is sent, in each convention and encoding; what is refused, and how."""

import base64
import gzip
import json

import aiohttp
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from mindscore._util.errors import StoreError
from mindscore.collect import otlp
from mindscore.conversation.message import ToolCall

from .conftest import PROTOBUF, parts, request_of

JSON = {"Content-Type": "application/json"}
GZIP = {"Content-Encoding": "gzip"}
KEY = "sk-very-secret"


def partial(body):
    return ExportTraceServiceResponse.FromString(body).partial_success


def numbered(prefix, messages):
    """Attributes of messages that are numbered, as OpenInference and Traceloop have them."""
    return {
        f"{prefix[0]}.{number}.{prefix[1]}{field}": text
        for number, message in enumerate(messages)
        for field, text in message.items()
    }


SYSTEM = {"role": "system", "content": "Nora drinks rooibos."}
USER = {"role": "user", "content": "What shall I drink?"}
ANSWER = {"role": "assistant", "content": "A pot of rooibos."}
ASKED = [SYSTEM, USER]
TOOL = {"name": "find", "description": "d", "parameters": {"type": "object", "properties": {}}}
CONVENTIONS = {
    "genai": {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": "kitchen",
        "gen_ai.system_instructions": [{"type": "text", "content": SYSTEM["content"]}],
        "gen_ai.input.messages": [parts("user", USER["content"])],
        "gen_ai.output.messages": [parts("assistant", ANSWER["content"])],
        "gen_ai.tool.definitions": [{"type": "function", **TOOL}],
    },
    "openinference": {
        "openinference.span.kind": "LLM",
        "session.id": "kitchen",
        **numbered(("llm.input_messages", "message."), ASKED),
        **numbered(("llm.output_messages", "message."), [ANSWER]),
        "llm.tools.0.tool.json_schema": {"type": "function", "function": TOOL},
    },
    "traceloop": {
        "traceloop.association.properties.session_id": "kitchen",
        **numbered(("gen_ai.prompt", ""), ASKED),
        **numbered(("gen_ai.completion", ""), [ANSWER]),
        "llm.request.functions.0.name": "find",
        "llm.request.functions.0.description": "d",
        "llm.request.functions.0.parameters": TOOL["parameters"],
    },
    "langfuse": {
        "langfuse.observation.type": "generation",
        "langfuse.session.id": "kitchen",
        "langfuse.observation.input": {
            "messages": ASKED, "tools": [{"type": "function", "function": TOOL}],
        },
        "langfuse.observation.output": ANSWER,
    },
    "vercel": {
        "ai.operationId": "ai.generateText.doGenerate",
        "ai.telemetry.metadata.sessionId": "kitchen",
        "ai.prompt.messages": [
            SYSTEM, {"role": "user", "content": [{"type": "text", "text": USER["content"]}]},
        ],
        "ai.prompt.tools": [json.dumps({"type": "function", **TOOL})],
        "ai.response.text": ANSWER["content"],
    },
    "events": {
        "gen_ai.conversation.id": "kitchen",
        "gen_ai.tool.definitions": [],
        "events": [
            ("gen_ai.system.message", {"content": SYSTEM["content"]}),
            ("gen_ai.user.message", {"content": USER["content"]}),
            ("gen_ai.choice", {"message": json.dumps(ANSWER), "index": "0"}),
        ],
    },
}  # fmt: skip


@pytest.mark.parametrize("convention", CONVENTIONS)
async def test_each_convention_says_the_same(convention, collecting, queue):
    async with collecting() as client:
        assert await client.send(CONVENTIONS[convention]) == b""
    kept = queue.next()
    talk = kept.record.conversation(kept.name)
    assert (kept.name, kept.named) == ("kitchen", True)
    assert [(it.role, it.text) for it in talk.messages] == [
        tuple(it.values()) for it in [*ASKED, ANSWER]
    ]
    assert [it["function"]["name"] for it in talk.tools] == ["find"] * (convention != "events")
    assert talk.remarks == ()


async def test_a_call_of_a_tool_and_its_result_are_read(collecting, queue):
    call = {"type": "tool_call", "id": "1", "name": "find", "arguments": {"a": 1}}
    result = {"type": "tool_call_response", "id": "1", "response": "42"}
    first = {
        "gen_ai.input.messages": [parts("user", "u1")],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [call]}],
        "gen_ai.conversation.id": "kitchen",
    }
    history = [parts("user", "u1"), {"role": "assistant", "parts": [call]}]
    second = {
        **first,
        "gen_ai.input.messages": [*history, {"role": "tool", "parts": [result]}],
        "gen_ai.output.messages": [parts("assistant", "It is 42.")],
    }
    async with collecting() as client:
        await client.send(first, second)
    kept = queue.next()
    talk = kept.record.conversation(kept.name)
    assert kept.turns == 2
    assert talk.messages[1].tool_calls == (ToolCall("find", '{"a": 1}', "1"),)
    assert talk.messages[2].text == "42"
    assert any("definitions of the tools were not sent" in it for it in talk.remarks)


async def test_spans_that_are_no_requests_to_a_model_are_passed_over(collecting, queue, span):
    others = [
        {"http.request.method": "GET"},
        span("s", "u1", "a1", **{"gen_ai.operation.name": "invoke_agent"}),
        span("s", "u1", "a1", **{"openinference.span.kind": "AGENT"}),
        span("s", "u1", "a1", **{"langfuse.observation.type": "span"}),
        {"ai.operationId": "ai.generateText", "ai.prompt": "{}", "ai.response.text": "a1"},
        {"gen_ai.input.messages": [parts("user", "u1")], "gen_ai.request.model": "m"},
    ]
    async with collecting() as client:
        assert await client.send(*others) == b""
    assert queue.waiting().turns == 0


async def test_requests_without_their_texts_are_a_warning(collecting, caplog):
    async with collecting() as client:
        found = partial(await client.send({"gen_ai.request.model": "m"}, {"x": "y"}))
    assert found.rejected_spans == 0
    assert "1 span of requests to a model without" in found.error_message
    assert "CAPTURE_MESSAGE_CONTENT" in caplog.text


async def test_one_bad_span_does_not_take_the_others_with_it(collecting, queue, span):
    bad = [
        span("s", "u1", "a1") | {"gen_ai.input.messages": '[{"role":"user"'},
        span("s", "u1", "a1") | {"gen_ai.input.messages": [{"role": "emperor", "content": "u"}]},
        span("s", "u1", "a1", name="n" * 501),
        span("s", "u1", ""),
    ]
    async with collecting() as client:
        found = partial(await client.send(bad[0], span("s", "u1", "a1"), *bad[1:]))
    assert found.rejected_spans == len(bad)
    assert "4 spans rejected, such as: " in found.error_message
    assert queue.waiting().turns == 1


async def test_a_span_that_is_not_one_on_the_wire_is_rejected_alone(collecting, queue, span):
    good = request_of(span("s", "u1", "a1"))
    # A span whose first field says that it is longer than the span.
    wrong = b"\x0a\x06\x12\x04\x12\x02\x0a\x7f"
    async with collecting() as client:
        status, _, body = await client.post("/v1/traces", wrong + good)
    assert (status, partial(body).rejected_spans) == (200, 1)
    assert queue.waiting().turns == 1


@pytest.mark.parametrize("dropped", ["dropped", "dropped_events"])
async def test_a_span_whose_messages_may_be_dropped_is_rejected(dropped, collecting, queue, span):
    said = {
        "gen_ai.user.message": {"content": "u"},
        "gen_ai.choice": {"message": '{"content":"a"}'},
    }
    asked = span("s", "u1", "a1") if dropped == "dropped" else {"events": said.items()}
    other = {"http.route": "/x", dropped: 3}
    async with collecting() as client:
        found = partial(await client.send(asked | {dropped: 2}, other))
    assert found.rejected_spans == 1
    assert "COUNT_LIMIT" in found.error_message
    assert queue.waiting().turns == 0


async def test_events_that_are_no_messages_may_be_dropped(collecting, queue, span):
    async with collecting() as client:
        assert await client.send(span("s", "u1", "a1", dropped_events=9)) == b""
    assert queue.waiting().turns == 1


@pytest.mark.parametrize(
    "attributes", [{"key": "SECRET"}, [{"key": "a", "value": {"intValue": "SECRET"}}]]
)
async def test_what_a_span_says_is_in_no_log(attributes, collecting, caplog):
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": attributes}]}]}]}
    async with collecting() as client:
        status, _, body = await client.post("/v1/traces", request)
    assert (status, json.loads(body)["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert "attributes" in caplog.text
    assert "SECRET" not in caplog.text


def as_json(raw):
    """The same request in OTLP's JSON, in which ids are hexadecimal."""
    from google.protobuf import json_format

    document = json_format.MessageToDict(ExportTraceServiceRequest.FromString(raw))
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for it in scope["spans"]:
                for name in ("traceId", "spanId"):
                    it[name] = base64.b64decode(it[name]).hex().upper()
    return json.dumps(document).encode()


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/traces/"])
@pytest.mark.parametrize("packed", [False, True])
async def test_json_and_protobuf_are_the_same_turn(path, packed, collecting, queue, span):
    raw = request_of(span("s", "u1", "a1", name="", trace="ab" * 16, span="cd" * 8))
    async with collecting() as client:
        for body, kind in ((raw, PROTOBUF), (as_json(raw), JSON)):
            sent = gzip.compress(body) if packed else body
            headers = kind | (GZIP if packed else {})
            status, answered, said = await client.post(path, sent, headers)
            assert (status, answered["Content-Type"]) == (200, kind["Content-Type"])
            assert said == (b"{}" if kind is JSON else b"")
    kept = queue.next()
    assert (kept.name, kept.named, kept.turns) == ("ab" * 16, False, 1)


async def test_an_empty_export_is_fine(collecting):
    async with collecting() as client:
        assert (await client.post("/v1/traces", b""))[0] == 200
        assert (await client.post("/v1/traces", b"{}", JSON))[0] == 200


async def test_connections_are_kept(collecting, queue, span):
    async with collecting() as client, aiohttp.ClientSession() as session:
        for number in range(3):
            body = request_of(span("s", "u1", "a1", name=f"c{number}", span=f"{number:016x}"))
            async with session.post(f"{client.url}/v1/traces", data=body, headers=PROTOBUF) as it:
                assert it.status == 200
                await it.read()
            assert len(session.connector._conns) == 1
    assert queue.waiting().conversations == 3


# refusals


def bomb():
    return gzip.compress(b"\0" * (otlp.MAX_BYTES + 2))


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"\xff\xff\xff\xff", {}, 400),
        (b"not gzip", GZIP, 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-10], GZIP, 400),
        (b"", {"Content-Encoding": "br"}, 415),
        (bomb(), GZIP, 413),
        (b"\0" * (otlp.MAX_BYTES + 1), {}, 413),
    ],
)  # fmt: skip
async def test_what_is_no_export_is_refused_as_otlp_has_it(kind, body, headers, status, collecting):
    async with collecting() as client:
        got, answered, said = await client.post("/v1/traces", body, kind | headers)
    assert (got, answered["Content-Type"]) == (status, kind["Content-Type"])
    # google.rpc.Status has its message where this has it.
    words = (
        json.loads(said)["message"]
        if kind is JSON
        else ExportTracePartialSuccess.FromString(said).error_message
    )
    assert words


async def test_too_many_spans_are_refused_before_they_are_read(collecting, monkeypatch):
    many = ExportTraceServiceRequest()
    scope = many.resource_spans.add().scope_spans.add()
    for _ in range(4):
        scope.spans.add()
    monkeypatch.setattr(otlp, "MAX_SPANS", 3)
    async with collecting() as client:
        assert (await client.post("/v1/traces", many.SerializeToString()))[0] == 413
        spans = {"resourceSpans": [{"scopeSpans": [{"spans": [{}] * 4}]}]}
        assert (await client.post("/v1/traces", json.dumps(spans).encode(), JSON))[0] == 413


async def test_a_span_that_is_long_in_json_is_for_protobuf(collecting, queue, span, monkeypatch):
    monkeypatch.setattr(otlp, "MAX_JSON_SPAN_BYTES", 1000)
    raw = request_of(span("s", "u1", "a" * 1000))
    async with collecting() as client:
        status, _, said = await client.post("/v1/traces", as_json(raw), JSON)
        assert status == 200
        assert "send protobuf" in json.loads(said)["partialSuccess"]["errorMessage"]
        assert queue.waiting().turns == 0
        assert (await client.post("/v1/traces", raw))[0] == 200
    assert queue.waiting().turns == 1


async def test_other_types_and_paths_are_refused(collecting):
    async with collecting() as client:
        assert (await client.post("/v1/traces", b"x", {"Content-Type": "text/plain"}))[0] == 415
        status, _, said = await client.post("/v1/logs", b"", PROTOBUF)
        assert status == 404
        assert "/v1/traces, /v1/turns, /v1/health" in json.loads(said)["error"]["message"]
        async with aiohttp.ClientSession() as session, session.get(f"{client.url}/v1/traces") as it:
            assert it.status == 405


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/turns"])
async def test_the_key_is_asked_for(path, collecting, queue, span):
    raw = request_of(span("s", "u1", "a1"))
    async with collecting(key=KEY) as client:
        status, headers, _ = await client.post(path, raw)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert queue.waiting().turns == 0
        await client.send(span("s", "u1", "a1"), Authorization=f"Bearer {KEY}")
        assert (await client.health())["waiting"] == 1


async def test_a_page_of_another_name_is_refused(collecting):
    async with collecting() as client:
        status, *_ = await client.post("/v1/traces", b"", PROTOBUF | {"Host": "evil.example"})
    assert status == 403


@pytest.mark.parametrize("path", ["/v1/traces", "/v1/turns"])
async def test_a_full_queue_says_when_to_try_again(path, collecting, make_queue, span):
    small = make_queue(limit=3000)
    plain = {"conversation": "b", "messages": [USER], "response": {"content": "a" * 2000}}
    other = span("s", "u1", "a" * 2000, name="b", span="0b" * 8)
    body = request_of(other) if path == "/v1/traces" else plain
    async with collecting(turns=small) as client:
        await client.send(span("s", "u1", "a" * 2000, name="a"))
        status, headers, _ = await client.post(path, body)
        assert (status, int(headers["Retry-After"]) > 0) == (429, True)
        small.remove(small.next())
        assert (await client.post(path, body))[0] in (200, 202)


async def test_a_queue_that_cannot_be_written_is_tried_again_by_exporters(
    collecting, queue, span, monkeypatch
):
    def fail(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(queue, "put", fail)
    async with collecting() as client:
        status, headers, _ = await client.post("/v1/traces", request_of(span("s", "u1", "a1")))
    assert (status, int(headers["Retry-After"]) > 0) == (503, True)


# memories in an attribute


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ('{"tea": "She drinks rooibos."}', {"tea": "She drinks rooibos."}),
        ('[{"id": "7", "memory": "She drinks rooibos."}]', {"7": "She drinks rooibos."}),
        (["Max is her dog."], {"max-is-her-dog": "Max is her dog."}),
        ("Max is her dog.", {"max-is-her-dog": "Max is her dog."}),
        ("", {}),
    ],
)
async def test_an_attribute_names_memories(given, found, collecting, queue, span):
    async with collecting(memory_attribute="my.memories") as client:
        await client.send(span("s", "u1", "a1", **{"my.memories": given}))
    assert queue.next().record.memories == found


async def test_an_attribute_that_holds_no_memories_rejects_its_span(collecting, queue, span):
    async with collecting(memory_attribute="my.memories") as client:
        body = await client.send(span("s", "u1", "a1", **{"my.memories": '{"tea": 7}'}))
    assert partial(body).rejected_spans == 1


# POST /v1/turns

TURN = {"conversation": "kitchen", "messages": ASKED, "response": ANSWER}


async def test_a_turn_is_new_once(collecting, queue):
    async with collecting() as client:
        answers = [
            (status, json.loads(body))
            for status, _, body in [
                await client.post("/v1/turns", {**TURN, "id": "t1"}) for _ in range(2)
            ]
        ]
        health = await client.health()
    assert answers == [(202, {"turn": "t1", "waiting": 1}), (200, {"turn": "t1", "waiting": 1})]
    assert health == {
        "status": "ok", "waiting": 1, "conversations": 1, "bytes": queue.waiting().size,
    }  # fmt: skip


async def test_a_turn_without_an_id_gets_one(collecting):
    async with collecting() as client:
        ids = [json.loads((await client.post("/v1/turns", TURN))[2])["turn"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 32


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"conversation": ""}, "conversation"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "emperor", "content": "u"}]}, "emperor"),
        ({"response": {"content": ""}}, "the response says nothing"),
        ({"response": {"role": "user", "content": "a"}}, "expected the role assistant"),
        ({"memories": {"tea": 7}}, "memories"),
        ({"at": "yesterday"}, "yesterday"),
        ({"id": "i" * 501}, "id"),
    ],
)
async def test_a_turn_that_is_not_valid_says_why(change, why, collecting, queue):
    async with collecting() as client:
        status, _, body = await client.post("/v1/turns", {**TURN, **change})
    assert status == 400
    error = json.loads(body)["error"]
    assert why in error["message"] + (error["param"] or "")
    assert queue.waiting().turns == 0


@pytest.mark.parametrize("missing", TURN)
async def test_what_a_turn_needs_is_named(missing, collecting):
    async with collecting() as client:
        body = {name: it for name, it in TURN.items() if name != missing}
        status, _, said = await client.post("/v1/turns", body)
    assert (status, json.loads(said)["error"]["param"]) == (400, missing)


async def test_another_turn_of_the_same_id_is_refused(collecting, queue):
    async with collecting() as client:
        sent = [
            {**TURN, "id": "t1"},
            {**TURN, "id": "t1", "response": {"content": "other words"}},
            {**TURN, "id": "t1", "conversation": "garden"},
        ]
        answers = [await client.post("/v1/turns", it) for it in sent]
    assert [status for status, _, _ in answers] == [202, 409, 202]
    assert json.loads(answers[1][2])["error"]["param"] == "id"
    assert queue.waiting().turns == 2


async def test_half_an_emoji_is_no_reason_to_lose_a_turn(collecting, queue):
    raw = json.dumps({**TURN, "messages": [{"role": "user", "content": "hi \ud83d"}]}).encode()
    kind = {"Content-Type": "application/json"}
    async with collecting() as client:
        status, _, _ = await client.post("/v1/turns", raw, kind)
    assert status == 202
    assert queue.next().record.messages[0]["content"] == "hi \ufffd"
