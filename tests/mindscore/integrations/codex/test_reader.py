"""Codex CLI's rollouts: in the shape that 0.171 wrote, and those before it."""

import json

from mindscore.conversation.message import ToolCall
from mindscore.readers.reading import NO_TOOLS

from ..conftest import said

FORMAT = "codex"

SESSION = {"id": "s1", "timestamp": "2026-05-01T10:00:00.000Z"}


def line(kind, **payload):
    return {"timestamp": "2026-05-01T10:00:00.000Z", "type": kind, "payload": payload}


def item(kind, **fields):
    return line("response_item", type=kind, **fields)


def message(role, text):
    kind = "output_text" if role == "assistant" else "input_text"
    return item("message", role=role, content=[{"type": kind, "text": text}])


def rollout(*lines, meta=SESSION):
    return "".join(json.dumps(it) + "\n" for it in (line("session_meta", **meta), *lines)).encode()


def test_the_prompt_is_read_as_the_model_saw_it(one):
    conversation = one("codex.jsonl")
    assert (conversation.name, conversation.id) == ("0199-a", "0199-a")
    texts = said(conversation)
    assert texts[0] == ("system", "You are Codex.")
    assert texts[1] == (
        "system",
        "<permissions instructions>\nAsk first.\n</permissions instructions>",
    )
    assert [role for role, _ in texts[2:]] == [
        "user", "user", "assistant", "tool", "tool", "assistant", "assistant", "user", "assistant",
        "tool", "user", "user", "assistant",
    ]  # fmt: skip
    assert texts[3] == ("user", "Which glue?")
    assert texts[-1] == ("assistant", "Brass.")


def test_reasoning_text_and_calls_of_one_response_are_one_message(one):
    looked = one("codex.jsonl").messages[4]
    assert (looked.id, looked.text, looked.reasoning) == ("msg_4", "I look.", "I should look.")
    assert [(it.name, it.arguments, it.id) for it in looked.tool_calls] == [
        ("exec_command", '{"cmd":"ls"}', "call_1"),
        ("apply_patch", '"*** Begin Patch"', "call_2"),
    ]
    assert looked.timestamp_ns is not None
    assert looked.timestamp_ns % 10**9 == 250_000_000


def test_results_name_their_calls_and_an_interrupted_call_is_answered_as_codex_does(one):
    results = [it for it in one("codex.jsonl").messages if it.role == "tool"]
    assert [(it.tool_call_id, it.text) for it in results] == [
        ("call_1", "glue.txt"), ("call_2", "Done."), ("call_3", "aborted"),
    ]  # fmt: skip


def test_calls_of_the_models_own_tools_are_calls(one):
    calls = [call for it in one("codex.jsonl").messages for call in it.tool_calls][2:]
    assert calls[0] == ToolCall("web_search", '{"type": "search", "query": "oak glue"}')
    assert calls[1].name == "local_shell"
    assert json.loads(calls[1].arguments)["command"] == ["ls", "screws"]


def test_files_of_memories_are_marked_within_their_message(read):
    conversations = read("codex.jsonl")
    transcript = conversations.transcript(conversations.found[0])
    assert transcript.keys() == ["~/.codex/AGENTS.md", "/home/ines/boats/AGENTS.md"]
    assert transcript.conversation[0].role == "user"


def test_what_is_left_out_is_counted_and_what_is_recorded_is_not_denied(one):
    assert one("codex.jsonl").remarks == (
        NO_TOOLS,
        "left out: results of web searches, which are not in the file (1)",
    )


def test_unknown_items_and_records_are_counted_by_their_type(one):
    talk = (message("user", "a"), message("assistant", "b"))
    [_, left_out] = one(rollout(item("new_thing"), line("newer"), *talk)).remarks
    assert "items of type new_thing (1)" in left_out
    assert "records of type newer (1)" in left_out


def test_two_messages_of_one_response_stay_two(one):
    content = rollout(message("user", "a"), message("assistant", "b"), message("assistant", "c"))
    assert said(one(content)) == [("user", "a"), ("assistant", "b"), ("assistant", "c")]


def test_what_the_model_thought_between_calls_is_of_the_same_response(one):
    def thought(text):
        return item("reasoning", summary=[{"type": "summary_text", "text": text}])

    def call(name):
        return item("function_call", name="ls", arguments="{}", call_id=name)

    content = rollout(
        message("user", "a"), thought("1"), item("ghost_snapshot"), call("c1"), thought("2"),
        call("c2"),
        item("function_call_output", call_id="c1", output="x"),
        item("function_call_output", call_id="c2", output="y"),
        thought("3"), message("assistant", "b"), thought("4"), message("assistant", "c"),
    )  # fmt: skip
    messages = one(content).messages
    assert [it.text for it in messages] == ["a", "", "x", "y", "b", "c"]
    assert [it.reasoning for it in messages if it.role == "assistant"] == ["1\n2", "3", "4"]
    assert [it.id for it in messages[1].tool_calls] == ["c1", "c2"]


def test_a_compaction_replaces_what_was_before(one):
    kept = [message("user", "a")["payload"], message("user", "Summary: glue.")["payload"]]
    content = rollout(
        message("user", "a"), message("assistant", "b"), message("user", "c"),
        line("compacted", message="Summary: glue.", replacement_history=kept),
        message("user", "d"), message("assistant", "e"),
    )  # fmt: skip
    conversation = one(content)
    assert said(conversation) == [
        ("user", "a"), ("user", "Summary: glue."), ("user", "d"), ("assistant", "e"),
    ]  # fmt: skip
    assert "left out: items before a compaction (1)" in conversation.remarks


def test_an_older_compaction_keeps_what_the_user_said_and_says_that_it_is_rebuilt(one):
    content = rollout(
        message("user", "a"), message("assistant", "b"), line("compacted", message="Summary."),
        message("user", "c"), message("assistant", "d"),
    )  # fmt: skip
    conversation = one(content)
    assert [text for _, text in said(conversation)] == ["a", "Summary.", "c", "d"]
    assert any(
        "line 4: the prompt after this compaction is rebuilt" in it for it in conversation.remarks
    )


def test_an_encrypted_summary_is_said_to_be_missing(one):
    kept = [message("user", "a")["payload"], {"type": "compaction", "encrypted_content": "x"}]
    content = rollout(
        line("compacted", message="", replacement_history=kept), message("assistant", "b")
    )
    assert "summaries of earlier messages, which are encrypted (1)" in one(content).remarks[-1]


def test_turns_that_were_taken_back_are_not_in_the_prompt(one):
    content = rollout(
        message("user", "<environment_context>\n</environment_context>"),
        message("user", "a"), message("assistant", "b"),
        message("user", "<environment_context>\n</environment_context>"),
        message("user", "<b>c</b>"), message("assistant", "d"),
        line("event_msg", type="thread_rolled_back", num_turns=1),
        message("user", "e"), message("assistant", "f"),
    )  # fmt: skip
    conversation = one(content)
    assert [text for _, text in said(conversation) if "<" not in text] == ["a", "b", "e", "f"]
    assert "turns that the user took back (1)" in conversation.remarks[-1]


def test_newer_versions_say_which_messages_the_user_typed(one):
    def told(text, kind):
        metadata = {"content_item_kinds": [kind]}
        content = [{"type": "input_text", "text": text}]
        return item(
            "message", role="user", content=content,
            internal_chat_message_metadata_passthrough=metadata,
        )  # fmt: skip

    content = rollout(
        told("a", "user.text"), message("assistant", "b"),
        told("<environment_context> typed", "user.text"), message("assistant", "c"),
        told("Of Codex.", "environments.environment_context"), message("assistant", "d"),
        line("event_msg", type="thread_rolled_back", num_turns=1),
    )  # fmt: skip
    assert [text for _, text in said(one(content))] == ["a", "b"]


def test_a_fork_without_the_messages_it_goes_on_from_says_so(one):
    meta = {**SESSION, "forked_from_id": "s0", "history_base": {"thread_id": "s0"}}
    remarks = one(rollout(message("user", "a"), message("assistant", "b"), meta=meta)).remarks
    assert any(
        it.startswith("it goes on from session s0, whose messages are not") for it in remarks
    )


def test_instructions_of_older_versions_are_the_users_own(one):
    printed = message("user", "<user_instructions>\n\nUse oak glue.\n\n</user_instructions>")
    meta = {**SESSION, "instructions": "Use oak glue."}
    talk = (message("user", "a"), message("assistant", "b"))
    assert [it.memory_key for it in one(rollout(printed, *talk, meta=meta)).messages] == [None] * 3
    alone = one(rollout(*talk, meta=meta)).messages
    assert (alone[0].memory_key, alone[0].text) == ("AGENTS.md", "Use oak glue.")


def test_the_first_form_has_bare_items(one):
    lines = [
        {**SESSION, "instructions": None},
        {"record_type": "state"},
        message("user", "a")["payload"],
        message("assistant", "b")["payload"],
    ]
    conversation = one("".join(json.dumps(it) + "\n" for it in lines).encode())
    assert (conversation.id, said(conversation)) == ("s1", [("user", "a"), ("assistant", "b")])


def test_a_line_that_is_not_whole_is_left_out_with_its_place(one):
    wrong = item("message", role="assistant", content=[3])
    whole = rollout(message("user", "a"), message("assistant", "b"), wrong)
    conversation = one(whole + b'{"timestamp": "2026')
    assert said(conversation) == [("user", "a"), ("assistant", "b")]
    remarks = "\n".join(conversation.remarks)
    assert "line 4: 'content': expected parts" in remarks
    assert "line 5: is not valid JSON" in remarks


def test_a_rollout_without_messages_is_refused(refused):
    assert refused(rollout()).endswith(": holds no messages")
    assert refused(rollout(item("message", role="x"))).startswith("line 2: 'role': expected")
