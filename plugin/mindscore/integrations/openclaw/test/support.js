// A server that records what it is sent, and a host that registers the plugin, as OpenClaw does.
import http from "node:http";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import plugin from "../index.js";

/** Start a server; `answer(response, number)` replies to each request, by default with 202. */
export async function recorder(answer = (response) => response.writeHead(202).end("{}")) {
  const requests = [];
  const server = http.createServer(async (request, response) => {
    const pieces = [];
    for await (const piece of request) pieces.push(piece);
    const body = Buffer.concat(pieces).toString();
    requests.push({ path: request.url, headers: request.headers, body });
    answer(response, requests.length);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A test that fails before it closes the server ends all the same.
  server.unref();
  server.on("connection", (socket) => socket.unref());
  const url = new URL(`http://127.0.0.1:${server.address().port}`);
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { url, requests, close, turns: () => requests.map((it) => JSON.parse(it.body)) };
}

/** Wait until `holds()`; throw after ten seconds. */
export async function until(holds) {
  const end = Date.now() + 10_000;
  while (!holds()) {
    if (Date.now() > end) throw new Error(`never: ${holds}`);
    await sleep(5);
  }
}

/** Register the plugin; `fire(hook, event, context)` returns what its handler does. */
export function host(pluginConfig = {}) {
  const handlers = new Map();
  const lines = [];
  plugin.register({
    pluginConfig,
    logger: { warn: (line) => lines.push(line) },
    on: (hook, handler) => handlers.set(hook, handler),
  });
  const fire = (hook, event, context) => handlers.get(hook)?.(event, context);
  return { handlers, lines, fire };
}

/** Send one turn from a process of its own, and return what it printed; throw if it goes on. */
export async function processWithOneTurn(url, environment = {}) {
  const [index, events] = ["../index.js", "./events.js"].map((it) => new URL(it, import.meta.url).href);
  const code =
    `import plugin from ${JSON.stringify(index)}; import { assistant, run } from ${JSON.stringify(events)};` +
    "const on = new Map(); const logger = { warn: (it) => console.log(it) };" +
    `plugin.register({ pluginConfig: { url: ${JSON.stringify(url)} }, logger, on: (a, b) => on.set(a, b) });` +
    "for (const [hook, ...rest] of run('r', 'Hello?', [assistant('Yes.')])) on.get(hook)(...rest);";
  const given = ["--input-type=module", "--eval", code];
  const options = { timeout: 20_000, env: { ...process.env, ...environment } };
  return (await promisify(execFile)(process.execPath, given, options)).stdout;
}
