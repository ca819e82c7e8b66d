import assert from "node:assert/strict";
import { test } from "node:test";
import { Runs } from "../runs.js";
import { FACTS, SENT_SYSTEM, STAMP, assistant, call, run, toolResult, user } from "./events.js";

function turnOf(events) {
  const runs = new Runs();
  runs.begin(events[0][1], events[0][2]);
  runs.call(events[1][1]);
  return runs.end(events[2][1], events[2][2])?.turn();
}

test("the first turn has the messages that the model got", () => {
  const turn = turnOf(run("r1", "What shall I drink?", [assistant("A pot of rooibos.")]));
  assert.deepEqual(turn.messages, [
    { role: "system", content: SENT_SYSTEM },
    { role: "user", content: `${STAMP}What shall I drink?\n\n${FACTS}` },
    { role: "user", content: "Active exec sessions: none" },
  ]);
  assert.deepEqual(turn.response, { role: "assistant", content: "A pot of rooibos." });
  assert.equal(turn.id, "r1");
  assert.equal(turn.conversation, "agent:main:kitchen/d4ea80fe-645b-4b16-bca9-064f95e8960e");
  assert.equal(turn.model, "echo/echo");
  assert.ok(Math.abs(Date.parse(turn.at) - Date.now()) < 60_000);
  assert.deepEqual(Object.keys(turn.memories), [
    "user/name-nora-f2e081",
    "memory/nora-drinks-rooibos",
    "memory/her-dog-is-called-max",
  ]);
});

test("a later turn has the history first, and the run-time facts last", () => {
  const history = [user("What shall I drink?", STAMP), assistant("A pot of rooibos.")];
  const turn = turnOf(run("r2", "What is my dog called?", [assistant("Max.")], { history }));
  assert.deepEqual(turn.messages.slice(1), [
    { role: "user", content: `${STAMP}What shall I drink?\n\n${FACTS}` },
    { role: "assistant", content: "A pot of rooibos." },
    { role: "user", content: `${STAMP}What is my dog called?` },
    { role: "user", content: "Active exec sessions: none" },
  ]);
});

test("calls of tools and their results stand before the response", () => {
  const answers = [
    assistant([{ type: "text", text: "Let me look." }, call("c1", "read", { path: "a.md" })], "toolUse"),
    toolResult("c1", "read", "- An entry."),
    assistant("There is one."),
    { role: "custom", customType: "openclaw.nested-tool.v1", excludeFromContext: true, content: "{}" },
  ];
  const turn = turnOf(run("r3", "Look it up.", answers));
  assert.deepEqual(turn.messages.slice(2), [
    {
      role: "assistant",
      content: "Let me look.",
      tool_calls: [{ id: "c1", type: "function", function: { name: "read", arguments: '{"path":"a.md"}' } }],
    },
    { role: "tool", tool_call_id: "c1", content: "- An entry." },
    { role: "user", content: "Active exec sessions: none" },
  ]);
  assert.equal(turn.response.content, "There is one.");
});

test("thoughts, pictures and summaries are told as such", () => {
  const history = [{ role: "compactionSummary", summary: "They spoke of tea." }];
  const thought = assistant([{ type: "thinking", thinking: "Hm." }, { type: "text", text: "A cat." }]);
  const events = run("r4", "What is this?", [thought], { history });
  events[2][1].messages[1].content.push({ type: "image", mimeType: "image/png", data: "AAAA" });
  const turn = turnOf(events);
  assert.match(turn.messages[1].content, /compacted.*\n\n<summary>\nThey spoke of tea\.\n<\/summary>/);
  assert.deepEqual(turn.messages[2].content, [
    { type: "text", text: `${STAMP}What is this?` },
    { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
  ]);
  assert.deepEqual(turn.response, { role: "assistant", content: "A cat.", reasoning_content: "Hm." });
});

test("for other servers the run-time facts stay in the system prompt, without their marks", () => {
  const turn = turnOf(run("r5", "Hello?", [assistant("Yes.")], { api: "anthropic-messages" }));
  assert.match(turn.messages[0].content, new RegExp(`2026-11-27\n${FACTS.replaceAll("|", "\\|")}\n<!-- /openclaw`));
  assert.equal(turn.messages[1].content, `${STAMP}Hello?`);
});

test("the last attempt of a run is what counts", () => {
  const runs = new Runs();
  const [first] = run("r6", "Hello?", []);
  const [again, , end] = run("r6", "Hello?", [assistant("Yes.")]);
  runs.begin(first[1], first[2]);
  runs.begin({ ...again[1], model: "other" }, again[2]);
  assert.equal(runs.end(end[1], end[2]).turn().model, "echo/other");
  assert.equal(runs.end(end[1], end[2]), undefined);
});

test("a run that failed, or whose answer was cut off, is no turn", () => {
  assert.equal(turnOf(run("r7", "Hello?", [assistant("Ye", "aborted")])), undefined);
  assert.equal(turnOf(run("r7", "Hello?", [assistant("Yes.")], { success: false })), undefined);
  const calls = [assistant([call("c1", "read", {})], "toolUse")];
  assert.equal(turnOf(run("r7", "Hello?", calls)), undefined);
});

test("a session that was rewritten meanwhile is refused, and so is an unknown kind of message", () => {
  const history = [user("Hello?"), assistant("Yes.")];
  const events = run("r8", "And now?", [assistant("Now.")], { history });
  events[2][1].messages.splice(0, 2, { role: "compactionSummary", summary: "They said hello." });
  assert.throws(() => turnOf(events), /rewritten/);
  const odd = run("r9", "And?", [assistant("So.")], { history: [{ role: "bashExecution", command: "ls" }] });
  assert.throws(() => turnOf(odd), /bashExecution/);
});

test("runs that never end are forgotten", () => {
  const runs = new Runs();
  const [input, , end] = run("first", "Hello?", [assistant("Yes.")]);
  runs.begin(input[1], input[2]);
  for (let number = 0; number < 1000; number += 1) {
    runs.begin({ ...input[1], runId: `open-${number}` }, input[2]);
  }
  assert.equal(runs.end(end[1], end[2]), undefined);
});
