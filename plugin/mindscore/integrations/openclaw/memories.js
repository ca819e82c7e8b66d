// The memories that a context holds: those of OpenClaw's files, and what searches of them found.
import { entriesOf, slug } from "./markdown.js";

const FILE_NAME = "(?:MEMORY|USER)\\.md";
// How OpenClaw heads a file of the workspace in the system prompt, and what ends it.
const HEAD = new RegExp(`^## (?:.*[\\\\/])?${FILE_NAME}$`);
const END = /^(?:## .*[\\/][^\\/]+\.md|<!-- \/?openclaw:.* -->)$/;
const MEMORY_FILE = new RegExp(`(?:^|[\\\\/])(?:${FILE_NAME}|memory[\\\\/].+\\.md)$`);
// Tags in which plugins print what they recall, as <active_memory_plugin> and <relevant-memories>.
const TAG = "([\\w:-]{0,64}memor[\\w:-]{0,64})";
const OPENING = new RegExp(`<${TAG}>\\n`, "gi");
const CLOSING = new RegExp(`</${TAG}>`, "gi");
const READERS = new Set(["memory_search", "memory_get", "read"]);
// The note of the place under each text that a search found.
const CITATION = /^Source: \S+$/;

/** Return `{key: text}` of the memories in the messages of a request. */
export function memoriesOf(messages) {
  const found = new Memories();
  const calls = new Map();
  for (const message of messages) {
    for (const call of message.tool_calls ?? []) calls.set(call.id, readCall(call));
    const text = typeof message.content === "string" ? message.content : "";
    if (message.role === "system") {
      for (const file of injectedFiles(text)) entriesOf(file).forEach(([key, it]) => found.add(key, it));
    } else if (message.role === "user") {
      for (const [tag, block] of tagged(text)) found.addEntries(tag, block);
    } else if (message.role === "tool") {
      const call = calls.get(message.tool_call_id);
      if (call !== undefined) for (const [path, it] of recalled(call, text)) found.addEntries(path, it);
    }
  }
  return found.texts();
}

/** Yield the name and the content of each tag of memories, in one pass over whatever a text holds. */
function* tagged(text) {
  const closings = new Map();
  for (const { 1: tag, index } of text.matchAll(CLOSING)) {
    const name = tag.toLowerCase();
    if (!closings.has(name)) closings.set(name, { ends: [], next: 0 });
    closings.get(name).ends.push(index);
  }
  let done = 0;
  for (const { 0: opening, 1: tag, index } of text.matchAll(OPENING)) {
    const its = closings.get(tag.toLowerCase());
    if (its === undefined || index < done) continue;
    const start = index + opening.length;
    while (its.ends[its.next] < start) its.next += 1;
    const end = its.ends[its.next];
    if (end === undefined) continue;
    yield [tag, text.slice(start, end)];
    done = end;
  }
}

class Memories {
  #keys = new Map();
  #texts = new Map();

  /** Add entries under keys that do not depend on where a piece of a file begins. */
  addEntries(prefix, text) {
    for (const [, entry] of entriesOf(text)) {
      if (!CITATION.test(entry)) this.add(`${prefix}/${slug(entry)}`, entry);
    }
  }

  /** Add a memory: a text has one key, its first, wherever else it is found. */
  add(key, text) {
    const bare = text.trim();
    if (this.#keys.has(bare)) return;
    this.#keys.set(bare, key);
    this.#texts.set(this.#texts.has(key) ? `${key}-${slug(bare)}` : key, bare);
  }

  texts() {
    return Object.fromEntries(this.#texts);
  }
}

/** Yield the texts of the memory files that a system prompt holds. */
function* injectedFiles(prompt) {
  let file;
  for (const line of prompt.split("\n")) {
    if (HEAD.test(line)) {
      if (file !== undefined) yield file.join("\n");
      file = [];
    } else if (file !== undefined && END.test(line)) {
      yield file.join("\n");
      file = undefined;
    } else if (!line.startsWith("[MISSING] ")) {
      file?.push(line);
    }
  }
  if (file !== undefined) yield file.join("\n");
}

/** Return the name and the arguments of a call, which may be one through `tool_call`. */
function readCall(call) {
  const given = parsed(call.function.arguments) ?? {};
  if (call.function.name !== "tool_call") return { name: call.function.name, given, isNested: false };
  return { name: String(given.id).split(":").at(-1), given: given.args ?? {}, isNested: true };
}

/** Yield the path and the text of each piece of a memory file in a tool's result. */
function* recalled({ name, given, isNested }, text) {
  if (!READERS.has(name)) return;
  if (name === "read") {
    if (typeof given.path === "string" && MEMORY_FILE.test(given.path)) yield [within(given.path), text];
    return;
  }
  const whole = parsed(text);
  const result = isNested ? parsed(whole?.result?.content?.[0]?.text) : whole;
  // Another plugin's tool of that name may answer anything.
  for (const hit of Array.isArray(result?.results) ? result.results : [result]) {
    const piece = hit?.snippet ?? hit?.text;
    if (typeof piece === "string" && typeof hit.path === "string") yield [within(hit.path), piece];
  }
}

/** Return a path below the workspace, whichever way a tool was given it. */
function within(path) {
  const below = /^(?:.*[\\/])?(memory[\\/].*)$/.exec(path);
  return below === null ? path.replace(/^.*[\\/]/, "") : below[1];
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
