import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { isLoopback, readConfig } from "../config.js";
import { assistant, run } from "./events.js";
import { host, processWithOneTurn, recorder, until } from "./support.js";

const read = (name) => JSON.parse(readFileSync(new URL(`../${name}`, import.meta.url), "utf8"));

test("a turn goes from the hooks to the server, and no hook waits or answers", async () => {
  const server = await recorder();
  const { fire, lines } = host({ url: server.url.href });
  for (const event of run("r1", "What shall I drink?", [assistant("A pot of rooibos.")])) {
    assert.equal(fire(...event), undefined);
  }
  assert.equal(server.requests.length, 0);
  await until(() => server.requests.length === 1);
  assert.equal(server.turns()[0].response.content, "A pot of rooibos.");
  await fire("gateway_stop", {});
  assert.deepEqual(lines, []);
  server.close();
});

test("events of another shape harm nothing, and are told once", async () => {
  const server = await recorder();
  const { fire, lines } = host({ url: server.url.href });
  const [, , [, end, context]] = run("r1", "Hello?", [assistant("Yes.")]);
  for (let number = 0; number < 3; number += 1) {
    fire("llm_input", null);
    fire("llm_input", { runId: "r1", historyMessages: "none" }, context);
    fire("agent_end", end, context);
    fire("agent_end", { messages: [] }, context);
  }
  await fire("gateway_stop", {});
  assert.equal(server.requests.length, 0);
  assert.equal(lines.length, 2);
  server.close();
});

test("the key is read from the environment and never logged", async (t) => {
  const server = await recorder((response) => response.writeHead(401).end("wrong key sesame"));
  process.env.NORAS_KEY = "sesame";
  t.after(() => delete process.env.NORAS_KEY);
  const { fire, lines } = host({ url: server.url.href, keyEnv: "NORAS_KEY" });
  for (const event of run("r1", "Hello?", [assistant("Yes.")])) fire(...event);
  await until(() => lines.length === 1);
  assert.equal(server.requests[0].headers.authorization, "Bearer sesame");
  assert.match(lines[0], /HTTP status 401; is the key in the variable keyEnv right\?/);
  assert.doesNotMatch(lines[0], /sesame/);
  await fire("gateway_stop", {});
  server.close();
});

test("nothing is registered where it is off, or its configuration is wrong", () => {
  assert.equal(host({ enabled: false }).handlers.size, 0);
  const wrong = host({ url: "ftp://somewhere" });
  assert.equal(wrong.handlers.size, 0);
  assert.deepEqual(wrong.lines, ["mindscore: url: expected an http:// or https:// address. No turn is sent."]);
});

test("without configuration, turns go to this machine", () => {
  const { url, key, enabled } = readConfig({}, {});
  assert.equal(url.href, "http://127.0.0.1:4318/v1/turns");
  assert.equal(key, "");
  assert.equal(enabled, true);
});

test("a key goes over plain http to this machine only", () => {
  const keyed = { MINDSCORE_COLLECT_KEY: "sesame" };
  assert.throws(() => readConfig({ url: "http://mind.example" }, keyed), /plain http/);
  assert.equal(readConfig({ url: "https://mind.example/below/" }, keyed).url.href, "https://mind.example/below/v1/turns");
  assert.equal(readConfig({ url: "http://mind.example" }, {}).key, "");
  assert.equal(readConfig({ url: "http://[::1]:4318" }, keyed).key, "sesame");
});

test("what is no configuration is refused by its name", () => {
  for (const [given, named] of [
    [{ urls: "" }, /unknown key urls/],
    [{ enabled: "yes" }, /^enabled/],
    [{ keyEnv: 3 }, /^keyEnv/],
    [{ url: "here" }, /^url/],
    [{ url: "http://nora:sesame@127.0.0.1" }, /^url/],
    [{ url: "http://127.0.0.1/?key=sesame" }, /^url/],
  ]) {
    assert.throws(() => readConfig(given, {}), { message: named });
  }
  assert.throws(() => readConfig({}, { MINDSCORE_COLLECT_KEY: "a\nb" }), /white space/);
});

test("only this machine's addresses are loopback", () => {
  for (const name of ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"]) assert.ok(isLoopback(name), name);
  for (const name of ["127.0.0.1.example", "localhost.example", "10.0.0.1", "[::2]"]) {
    assert.ok(!isLoopback(name), name);
  }
});

test("a process is not kept alive by turns that wait", async () => {
  assert.match(await processWithOneTurn("http://127.0.0.1:9"), /ECONNREFUSED/);
});

test("a proxy of the environment gets no conversation", async () => {
  const [proxy, server] = [await recorder(), await recorder()];
  // Read by Node at its start, from version 24 on.
  const names = { HTTP_PROXY: proxy.url.href, http_proxy: proxy.url.href, NODE_USE_ENV_PROXY: "1" };
  await processWithOneTurn(server.url.href, names);
  assert.equal(server.requests.length, 1);
  assert.deepEqual(proxy.requests, []);
  proxy.close();
  server.close();
});

test("the manifest, the package and the code name the same things", () => {
  const [manifest, made] = [read("openclaw.plugin.json"), read("package.json")];
  const { properties } = manifest.configSchema;
  const defaults = Object.entries(properties).map(([name, it]) => [name, it.default]);
  const { url, enabled } = readConfig(Object.fromEntries(defaults), {});
  assert.deepEqual({ url: url.href, enabled }, { url: "http://127.0.0.1:4318/v1/turns", enabled: true });
  assert.deepEqual(made.openclaw.extensions, [made.main]);
  assert.equal(made.dependencies, undefined);
  assert.equal(made.license, "Apache-2.0");
});
