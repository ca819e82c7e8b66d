import assert from "node:assert/strict";
import net from "node:net";
import { once } from "node:events";
import { test } from "node:test";
import { Outbox } from "../outbox.js";
import { recorder, until } from "./support.js";

const QUICK = { firstDelayMs: 1, longestDelayMs: 4, timeoutMs: 200 };

function outboxFor(url, { limits = {}, key = "" } = {}) {
  const lines = [];
  const address = new URL("/v1/turns", url);
  const outbox = new Outbox({ url: address, key, warn: (it) => lines.push(it), limits: { ...QUICK, ...limits } });
  return { outbox, lines };
}

const body = (number) => Buffer.from(JSON.stringify({ number }));
const numbers = (server) => server.turns().map((it) => it.number);

test("turns are posted one after the other, with the key", async () => {
  const server = await recorder();
  const { outbox, lines } = outboxFor(server.url, { key: "secret" });
  for (const number of [1, 2, 3]) outbox.push(body(number));
  await outbox.drain(10_000);
  assert.deepEqual(numbers(server), [1, 2, 3]);
  const [{ path, headers }] = server.requests;
  assert.equal(path, "/v1/turns");
  assert.equal(headers.authorization, "Bearer secret");
  assert.equal(headers["content-type"], "application/json");
  assert.deepEqual(lines, []);
  server.close();
});

test("a turn is sent again while the server is busy or away, and that is told once", async () => {
  const server = await recorder((response, number) => {
    if (number === 1) response.writeHead(503).end();
    else if (number === 2) response.writeHead(429, { "Retry-After": "0" }).end();
    else if (number === 3) response.destroy();
    else response.writeHead(202).end("{}");
  });
  const { outbox, lines } = outboxFor(server.url);
  outbox.push(body(1));
  await until(() => outbox.size === 0);
  assert.deepEqual(numbers(server), [1, 1, 1, 1]);
  assert.equal(lines.length, 1);
  assert.match(lines[0], /HTTP status 503; turns wait/);
  server.close();
});

test("a server that is not there is waited for", async () => {
  const gone = await recorder();
  gone.close();
  const { outbox, lines } = outboxFor(gone.url, { limits: { attempts: 2 } });
  outbox.push(body(1));
  await until(() => lines.length > 0);
  assert.match(lines[0], /ECONNREFUSED/);
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(outbox.size, 1);
  assert.equal(lines.length, 1);
  await outbox.drain(1);
  assert.match(lines[1], /^1 turn could not be sent/);
});

test("a server that never answers is given up, and asked again", async () => {
  const server = await recorder((response, number) => number > 1 && response.writeHead(202).end());
  const { outbox, lines } = outboxFor(server.url);
  outbox.push(body(1));
  await until(() => outbox.size === 0);
  assert.match(lines[0], /no answer in 0.2 s/);
  server.close();
});

test("what the server refuses is dropped, and the next one is sent", async () => {
  const server = await recorder((response, number) => response.writeHead(number < 3 ? 400 : 202).end("{}"));
  const { outbox, lines } = outboxFor(server.url);
  for (const number of [1, 2, 3]) outbox.push(body(number));
  await until(() => outbox.size === 0);
  assert.deepEqual(numbers(server), [1, 2, 3]);
  assert.equal(lines.length, 2);
  assert.match(lines[0], /does not take a turn: HTTP status 400/);
  assert.match(lines[1], /takes turns again; lost: 2 turns/);
  server.close();
});

test("a turn that the server fails on again and again does not hold up the others", async () => {
  const server = await recorder((response, number) => response.writeHead(number < 4 ? 500 : 202).end());
  const { outbox } = outboxFor(server.url, { limits: { attempts: 3 } });
  outbox.push(body(1));
  outbox.push(body(2));
  await until(() => outbox.size === 0);
  assert.deepEqual(numbers(server), [1, 1, 1, 2]);
  server.close();
});

test("nor does one over which the server breaks down", async () => {
  const server = await recorder((response, number) => (number < 4 ? response.destroy() : response.writeHead(202).end()));
  const { outbox, lines } = outboxFor(server.url, { limits: { attempts: 3 } });
  outbox.push(body(1));
  outbox.push(body(2));
  await until(() => outbox.size === 0);
  assert.deepEqual(numbers(server), [1, 1, 1, 2]);
  assert.match(lines[1], /does not take a turn: ECONNRESET/);
  server.close();
});

test("a redirect is not followed: no other host gets a conversation", async () => {
  const elsewhere = await recorder();
  const server = await recorder((response) => response.writeHead(307, { Location: `${elsewhere.url}v1/turns` }).end());
  const { outbox, lines } = outboxFor(server.url, { key: "secret" });
  outbox.push(body(1));
  await until(() => outbox.size === 0);
  assert.deepEqual(elsewhere.requests, []);
  assert.match(lines[0], /HTTP status 307/);
  server.close();
  elsewhere.close();
});

test("an answer without an end is given up", async () => {
  const server = await recorder((response, number) => {
    if (number > 1) response.writeHead(202).end();
    else response.writeHead(200).write(Buffer.alloc(100_000));
  });
  const { outbox, lines } = outboxFor(server.url);
  outbox.push(body(1));
  await until(() => outbox.size === 0);
  assert.match(lines[0], /its answer does not end/);
  server.close();
});

test("what speaks no HTTP is an error that passes", async () => {
  const server = net.createServer((socket) => socket.end("SSH-2.0\r\n"));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { outbox, lines } = outboxFor(new URL(`http://127.0.0.1:${server.address().port}`));
  outbox.push(body(1));
  await until(() => lines.length > 0);
  assert.equal(outbox.size, 1);
  await outbox.drain(1);
  server.close();
});

test("the queue is bounded: the oldest turns make room", async () => {
  let free;
  const held = new Promise((resolve) => (free = resolve));
  const server = await recorder(async (response) => {
    await held;
    response.writeHead(202).end();
  });
  const { outbox, lines } = outboxFor(server.url, { limits: { turns: 3, timeoutMs: 10_000 } });
  for (let number = 0; number < 1000; number += 1) outbox.push(body(number));
  assert.equal(outbox.size, 3);
  outbox.push(Buffer.alloc(65 * 2 ** 20));
  assert.equal(outbox.size, 3);
  free();
  await until(() => outbox.size === 0);
  assert.deepEqual(numbers(server), [0, 998, 999]);
  assert.equal(lines.filter((it) => it.includes("the oldest are dropped")).length, 1);
  assert.equal(lines.filter((it) => it.includes("too large")).length, 1);
  server.close();
});

test("it is bounded in bytes, too", () => {
  const { outbox } = outboxFor("http://127.0.0.1:9", { limits: { bytes: 100 } });
  for (let number = 0; number < 50; number += 1) outbox.push(Buffer.alloc(40));
  assert.equal(outbox.size, 2);
  return outbox.drain(1);
});

test("a turn that cannot be made is told once, and nothing is thrown", async () => {
  const { outbox, lines } = outboxFor("http://127.0.0.1:9");
  for (let number = 0; number < 3; number += 1) {
    outbox.expect(() => {
      throw new Error("the session was rewritten while the agent ran");
    });
  }
  await outbox.drain(1);
  assert.deepEqual(lines, ["a turn is left out: the session was rewritten while the agent ran"]);
});
