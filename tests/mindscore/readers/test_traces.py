"""One conversation as each system that traces, exports or logs it writes it."""

import json

import pytest

from mindscore.readers.conversations import Conversations

from .written import FIXTURES

PRINTED = "You help Ines.\n- She uses oak glue."
SAID = [
    ("system", PRINTED),
    ("user", "Which glue?"),
    ("assistant", ""),
    ("tool", "Glue holds."),
    ("assistant", "Oak glue."),
]
TOOLS = (
    "opentelemetry.jsonl", "openinference.jsonl", "traceloop.jsonl", "langfuse.json", "mlflow.json",
    "inspect.json", "letta.json",
)  # fmt: skip
FILES = [*TOOLS, "otel_events.jsonl", "langgraph.json", "open_webui.json"]


@pytest.mark.parametrize("name", FILES)
def test_the_last_prompt_is_read_whole_with_its_answer(name):
    messages = Conversations(FIXTURES / name).found[0].messages
    first = "I look." if name == "langgraph.json" else ""
    said = [(it.role, it.text) for it in messages]
    assert said[1:] == [SAID[1], ("assistant", first), *SAID[3:]]
    assert said[0][0] == "system"
    assert "She uses oak glue." in said[0][1]
    calls = [(it.name, json.loads(it.arguments)) for it in messages[2].tool_calls]
    assert calls == [("look", {"q": "glue"})]
    assert messages[3].tool_call_id == messages[2].tool_calls[0].id != ""


@pytest.mark.parametrize("name", TOOLS)
def test_definitions_of_tools_are_kept(name):
    [tool] = Conversations(FIXTURES / name).found[0].tools
    assert tool["function"]["name"] == "look"
    assert not any("does not record the def" in it for it in remarks(FIXTURES / name))


def remarks(file, at=0):
    return Conversations(file).found[at].remarks


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("langfuse.json", "requests with another prompt, such as a subagent's (1)"),
        ("langgraph.json", "earlier states of the same thread (1)"),
        ("letta.json", "messages that are out of the context (1)"),
        ("openinference.jsonl", "images that the file only names (1)"),
    ],
)
def test_what_is_left_out_is_counted(name, left_out):
    assert any(left_out in it for it in remarks(FIXTURES / name))


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("opentelemetry.jsonl", ["conv-1", "conv-2"]),
        ("otel_events.jsonl", ["0xaa"]),
        ("langfuse.json", ["sess-1"]),
        ("mlflow.json", ["sess-1"]),
        ("langgraph.json", ["thread-1"]),
        ("letta.json", ["agent-0"]),
        ("open_webui.json", ["w1"]),
        ("chatgpt.json", ["6a0c-1", "6a0c-2"]),
        ("claude_ai.json", ["c1"]),
    ],
)
def test_a_conversation_has_the_id_that_its_source_gives_it(name, ids):
    found = Conversations(FIXTURES / name).found
    assert [it.id for it in found] == [it.name for it in found] == ids


@pytest.mark.parametrize("name", [*FILES, "letta_old.json", "chatgpt.json", "claude_ai.json"])
def test_every_conversation_is_chosen_by_its_name_and_its_number(name):
    conversations = Conversations(FIXTURES / name)
    for number, found in enumerate(conversations.found, start=1):
        for chosen in (conversations.chosen(found.name), conversations.chosen(str(number))):
            assert (chosen.id, chosen.title) == (found.id, found.title)
            assert [it.text for it in chosen.messages] == [it.text for it in found.messages]


def changed(tmp_path, name, change):
    """Write a fixture with a change to its first value."""
    file = tmp_path / name
    if name.endswith(".json"):
        value = json.loads((FIXTURES / name).read_text())
        change(value)
        file.write_text(json.dumps(value))
    else:
        first, *rest = (FIXTURES / name).read_text().splitlines()
        value = json.loads(first)
        change(value)
        file.write_text("\n".join((json.dumps(value), *rest)))
    return file


def test_a_span_whose_messages_were_cut_off_is_left_out_and_said(tmp_path):
    def cut(value):
        attributes = value["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["attributes"]
        [given] = [it for it in attributes if it["key"] == "gen_ai.input.messages"]
        given["value"]["stringValue"] = given["value"]["stringValue"][:60]

    file = changed(tmp_path, "opentelemetry.jsonl", cut)
    first = Conversations(file).found[0]
    assert [it.text for it in first.messages] == [PRINTED, "Which glue?", ""]
    [remark] = [it for it in first.remarks if "record that is not valid" in it]
    assert "line 1, span 1: 'input.messages': expected an array, got text" in remark


def test_a_damaged_message_of_a_trace_is_left_out_with_its_place_and_the_rest_is_read(tmp_path):
    def damage(value):
        value["observations"][0]["input"]["messages"][3]["role"] = "nobody"

    found = Conversations(changed(tmp_path, "langfuse.json", damage)).found[0]
    assert [it.text for it in found.messages] == [PRINTED, "Which glue?", "", "Oak glue."]
    assert any("conversation sess-1, message 4: 'role'" in it for it in found.remarks)


def test_a_trace_without_requests_to_a_model_is_refused(refused):
    span = {"traceId": "t", "spanId": "s", "attributes": [], "name": "GET"}
    assert "holds no requests to a model" in refused(json.dumps(span).encode())


def test_of_an_answer_with_alternatives_the_first_counts(tmp_path):
    def more(value):
        span = value["data"]["spans"][1]
        outputs = json.loads(span["attributes"]["mlflow.spanOutputs"])
        outputs["choices"].append({"message": {"role": "assistant", "content": "Fish glue."}})
        span["attributes"]["mlflow.spanOutputs"] = json.dumps(outputs)

    found = Conversations(changed(tmp_path, "mlflow.json", more)).found[0]
    assert found.messages[-1].text == "Oak glue."
    assert any("further answers to the same prompt (1)" in it for it in found.remarks)


def span(**attributes):
    named = {key.replace("__", "."): it for key, it in attributes.items()}
    return {"context": {"trace_id": "t", "span_id": "s"}, "name": "x", "attributes": named}


def log(name, body, at):
    value = {
        "kvlistValue": {
            "values": [{"key": k, "value": {"stringValue": v}} for k, v in body.items()]
        }
    }
    return {
        "eventName": name,
        "traceId": "t",
        "spanId": "s",
        "body": value,
        "timeUnixNano": str(at),
    }


LOGS = [
    log("gen_ai.system.message", {"content": PRINTED}, 1),
    log("gen_ai.user.message", {"content": "Which glue?"}, 2),
    log("gen_ai.choice", {"content": "Oak glue.", "finish_reason": "stop"}, 3),
]


@pytest.mark.parametrize(
    "record",
    [
        {"resourceLogs": [{"scopeLogs": [{"logRecords": LOGS}]}]},
        span(
            ai__prompt__messages=json.dumps(
                [
                    {"role": "system", "content": PRINTED},
                    {"role": "user", "content": [{"type": "text", "text": "Which glue?"}]},
                ]
            ),
            ai__response__text="Oak glue.",
        ),
        {
            **span(),
            "attributes": {
                "llm": {
                    "input_messages": [
                        {"message": {"role": "system", "content": PRINTED}},
                        {"message": {"role": "user", "content": "Which glue?"}},
                    ],
                    "output_messages": [{"message": {"role": "assistant", "content": "Oak glue."}}],
                }
            },
        },
    ],
    ids=["logs", "vercel", "nested"],
)
def test_other_ways_to_record_a_request_are_read_too(read, record):
    conversations = read(json.dumps(record).encode())
    assert conversations.format == "opentelemetry"
    said = [(it.role, it.text) for it in conversations.found[0].messages]
    assert said == [("system", PRINTED), ("user", "Which glue?"), ("assistant", "Oak glue.")]


def generation(given, output):
    return {"id": "o", "traceId": "t", "type": "GENERATION", "input": given, "output": output}


@pytest.mark.parametrize(
    ("given", "output"),
    [
        ("Which glue?", "Oak glue."),
        (json.dumps([{"role": "user", "content": "Which glue?"}]), {"completion": "Oak glue."}),
        ([[{"type": "human", "content": "Which glue?"}]],
         {"generations": [[{"text": "", "message": {"role": "ai", "content": "Oak glue."}}]]}),
        ({"contents": [{"role": "user", "parts": [{"text": "Which glue?"}]}]},
         {"role": "model", "parts": [{"text": "Oak glue."}]}),
        ({"input": "Which glue?"},
         {"output": [{"type": "message", "role": "assistant",
                      "content": [{"type": "output_text", "text": "Oak glue."}]}]}),
        ({"input": [{"role": "user", "content": "Which glue?"}]},
         {"role": "assistant", "content": [{"type": "text", "text": "Oak glue."}]}),
    ],
)  # fmt: skip
def test_prompts_and_answers_of_every_chat_api_are_read(read, given, output):
    found = read(json.dumps([generation(given, output)]).encode()).found[0]
    assert [(it.role, it.text) for it in found.messages] == [
        ("user", "Which glue?"),
        ("assistant", "Oak glue."),
    ]


def test_items_of_the_responses_api_are_read_with_instructions_and_tools(read):
    items = [
        {"role": "user", "content": "Which glue?"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "Glue holds."},
    ]
    tools = [{"type": "function", "name": "look", "parameters": {}}]
    given = {"instructions": PRINTED, "input": items, "tools": tools}
    found = read(json.dumps(generation(given, "Oak glue.")).encode()).found[0]
    assert [(it.role, it.text) for it in found.messages] == SAID
    assert found.messages[2].reasoning == "I look."
    assert [it["function"]["name"] for it in found.tools] == ["look"]


@pytest.mark.parametrize("text", ['{"mast": "ash"}', '["mast"', '"mast"', "[1]", '["mast"]'])
def test_what_is_said_may_be_json(read, text):
    found = read(json.dumps(generation(text, text.replace("mast", "glue"))).encode()).found[0]
    asked, said = (it.text for it in found.messages)
    assert (asked, said) == (text, text.replace("mast", "glue"))


@pytest.mark.parametrize(
    ("given", "output", "why"),
    [
        ({"question": "x"}, "Oak.", "the request: holds no messages that are understood"),
        (3, "Oak.", "the request: expected messages, got a number"),
        ("Which glue?", {"verdict": 1}, "the answer: is in no form that is understood"),
    ],
)
def test_a_request_that_is_not_understood_is_left_out_and_said(read, given, output, why):
    good = {**generation("Which glue?", "Oak glue."), "traceId": "good"}
    found = read("\n".join(map(json.dumps, (generation(given, output), good))).encode()).found
    assert [it.name for it in found] == ["good"]
    assert any(why in it for it in found[0].remarks)
