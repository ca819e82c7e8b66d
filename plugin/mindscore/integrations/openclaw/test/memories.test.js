import assert from "node:assert/strict";
import { test } from "node:test";
import { entriesOf } from "../markdown.js";
import { memoriesOf } from "../memories.js";

const system = (text) => ({ role: "system", content: text });
const asked = (id, name, given) => ({
  role: "assistant",
  content: null,
  tool_calls: [{ id, type: "function", function: { name, arguments: JSON.stringify(given) } }],
});
const told = (id, value) => ({
  role: "tool",
  tool_call_id: id,
  content: typeof value === "string" ? value : JSON.stringify(value, null, 2),
});
const HIT = { path: "memory/2026-11-27.md", snippet: "# Friday\n\n- The bees are Ada.\n\nSource: memory/2026-11-27.md#L1-L4" };

test("entries have their headings and first words for a key", () => {
  const file = "# Home\n\n- Tea at four.\n  With milk.\n1. The *old* box\n\n## Work\nDeploy\non Fridays\n\n```\nmake\n```\n";
  assert.deepEqual(entriesOf(file).map(([, text]) => text), [
    "Tea at four.\nWith milk.",
    "The *old* box",
    "Deploy\non Fridays",
    "make",
  ]);
  assert.equal(entriesOf(file)[0][0], "home/tea-at-four-with-milk-ed361c");
  assert.equal(entriesOf(file)[2][0], "home/work/deploy-on-fridays");
});

test("entries of the memory files in a system prompt are found, of no other file", () => {
  const prompt =
    "## Tooling\n- read: Read files\n## C:\\ws\\USER.md\nName: Nora\n## C:\\ws\\MEMORY.md\n## Tea\n- Rooibos.\n" +
    "## C:\\ws\\AGENTS.md\n- Be kind.\n<!-- openclaw:attempt:DYNAMIC -->\n- A rule.";
  assert.deepEqual(Object.values(memoriesOf([system(prompt)])), ["Name: Nora", "Rooibos."]);
});

test("what a search found is keyed by its file, wherever the piece begins", () => {
  const key = "memory/2026-11-27.md/the-bees-are-ada";
  const found = { [key]: "The bees are Ada." };
  const search = asked("c1", "memory_search", { query: "bees" });
  assert.deepEqual(memoriesOf([search, told("c1", { results: [HIT] })]), found);
  const later = { ...HIT, snippet: "- The bees are Ada." };
  assert.deepEqual(memoriesOf([search, told("c1", { results: [later] })]), found);
  const get = asked("c1", "memory_get", { path: HIT.path });
  assert.deepEqual(memoriesOf([get, told("c1", { status: "ok", text: "- The bees are Ada.", path: HIT.path })]), found);
  const read = asked("c1", "read", { path: `/home/nora/ws/${HIT.path}` });
  assert.deepEqual(memoriesOf([read, told("c1", "- The bees are Ada.")]), found);
});

test("so is a search through tool_call", () => {
  const nested = { tool: {}, result: { content: [{ type: "text", text: JSON.stringify({ results: [HIT] }) }] } };
  const through = asked("c1", "tool_call", { id: "openclaw:memory-core:memory_search", args: { query: "bees" } });
  assert.deepEqual(Object.values(memoriesOf([through, told("c1", nested)])), ["The bees are Ada."]);
});

test("results of other tools and broken ones are no memories", () => {
  assert.deepEqual(memoriesOf([asked("c1", "read", { path: "notes.md" }), told("c1", "- A note.")]), {});
  assert.deepEqual(memoriesOf([asked("c1", "exec", {}), told("c1", { results: [HIT] })]), {});
  assert.deepEqual(memoriesOf([asked("c1", "memory_search", {}), told("c1", "not JSON")]), {});
  assert.deepEqual(memoriesOf([asked("c1", "tool_call", null), told("c1", "null")]), {});
  assert.deepEqual(memoriesOf([told("c9", { results: [HIT] })]), {});
});

test("what a plugin recalls between tags is found in the user's message", () => {
  const text = "Context:\n<active_memory_plugin>\nLemon wings.\n</active_memory_plugin>\nWhat shall I order?";
  assert.deepEqual(memoriesOf([{ role: "user", content: text }]), {
    "active_memory_plugin/lemon-wings": "Lemon wings.",
  });
});

test("a text has one key, and a key one text", () => {
  const prompt = system("## /ws/MEMORY.md\n# Bees\n- The bees are Ada.\n- the bees are ada");
  const search = asked("c1", "memory_search", {});
  const memories = memoriesOf([prompt, search, told("c1", { results: [HIT] })]);
  assert.deepEqual(Object.values(memories), ["The bees are Ada.", "the bees are ada"]);
});

test("a tool's answer of any shape is no reason to lose the turn", () => {
  const answers = ["5", '"x"', "null", "[]", '{"results": 5}', '{"results": [null, 7]}', '{"results": {}}'];
  const given = ['{"path": 5}', '{"path": ["memory/a.md"]}', "null", "7", '"memory/a.md"'];
  for (const name of ["memory_search", "memory_get", "read", "tool_call"]) {
    for (const content of answers) {
      for (const args of given) {
        const tool_calls = [{ id: "1", type: "function", function: { name, arguments: args } }];
        const messages = [
          { role: "assistant", content: null, tool_calls },
          { role: "tool", tool_call_id: "1", content },
        ];
        assert.deepEqual(memoriesOf(messages), {});
      }
    }
  }
});

test("a text full of tags that are not closed is read in one pass", () => {
  const began = performance.now();
  for (const piece of ["<a-memory>\n", "memor", "<memor>\n</memor "]) {
    memoriesOf([{ role: "user", content: `<${piece.repeat(200_000)}` }]);
  }
  // It took minutes.
  assert.ok(performance.now() - began < 10_000);
});

test("each tag ends at its own next closing", () => {
  const content = "<memory>\n- Tea.\n</memory> <a-memory>\n- Dog.\n</memory></a-memory><memory>\n- Cat.\n</memory>";
  assert.deepEqual(Object.values(memoriesOf([{ role: "user", content }])).sort(), ["Cat.", "Dog.\n</memory>", "Tea."]);
});
