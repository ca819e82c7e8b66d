// Runs of the agent, put together of what several hooks tell of one.
import { memoriesOf } from "./memories.js";
import { carriesRuntimeContext, inContext, relocate, toMessages } from "./messages.js";

// Runs that began and did not end, as those that were stopped, are forgotten when there are more.
const MOST_OPEN = 64;

export class Runs {
  #open = new Map();

  /** Hear of `llm_input`: a later attempt of the same run replaces an earlier one. */
  begin(event, context) {
    this.#open.delete(event.runId);
    this.#open.set(event.runId, { input: event, context, api: undefined });
    for (const id of this.#open.keys()) {
      if (this.#open.size <= MOST_OPEN) break;
      this.#open.delete(id);
    }
  }

  /** Hear of `model_call_started`, which says what kind of server is asked. */
  call(event) {
    const run = this.#open.get(event.runId);
    if (run !== undefined) run.api = event.api;
  }

  /** Hear of `agent_end`; return the run, `undefined` if it failed or is unknown. */
  end(event, context) {
    const id = event.runId ?? context.runId;
    const begun = this.#open.get(id);
    this.#open.delete(id);
    if (begun === undefined || event.success !== true) return undefined;
    return new Run(id, begun, event, { ...begun.context, ...context });
  }
}

class Run {
  constructor(id, begun, end, context) {
    Object.assign(this, { id, begun, end, context, at: new Date() });
  }

  /** Return the body of `POST /v1/turns`; throw if the context cannot be told as the model saw it. */
  turn() {
    const { input, api } = this.begun;
    const history = input.historyMessages.filter(inContext);
    const carriers = history.filter(carriesRuntimeContext);
    const before = history.filter((it) => !carriesRuntimeContext(it));
    const own = this.#ownMessages(before.length);
    const response = own.at(-1);
    if (response?.role !== "assistant" || !["stop", "length"].includes(response.stopReason)) {
      return undefined;
    }
    const { system, moved } = relocate(input.systemPrompt ?? "", api);
    const messages = toMessages([...before, this.#prompt(own[0]), ...own.slice(1, -1), ...carriers]);
    if (system) messages.unshift({ role: "system", content: system });
    moved.into(messages);
    return {
      id: this.id,
      conversation: this.#conversation(),
      messages,
      response: toMessages([response])[0],
      memories: memoriesOf(messages),
      model: `${input.provider}/${input.model}`,
      at: this.at.toISOString(),
    };
  }

  /** Return what this run added to the session: the user's message, and all that followed. */
  #ownMessages(before) {
    const all = this.end.messages.filter(inContext).filter((it) => !carriesRuntimeContext(it));
    if (this.#isPrompt(all[before])) return all.slice(before);
    // As when it was compacted meanwhile: what the model saw at the end is not known.
    throw new Error("the session was rewritten while the agent ran");
  }

  #isPrompt(message) {
    return message?.role === "user" && this.begun.input.prompt.includes(textOf(message));
  }

  /** Return the user's message with the text that the model got: with its time, and what plugins add. */
  #prompt(message) {
    const { prompt } = this.begun.input;
    const others = Array.isArray(message.content) ? message.content.filter((it) => it.type !== "text") : [];
    return { role: "user", content: [{ type: "text", text: prompt }, ...others] };
  }

  /** Return the session's key and its number: a key is used for a new conversation after a reset. */
  #conversation() {
    const { sessionKey, sessionId } = this.context;
    const id = sessionId ?? this.begun.input.sessionId;
    return sessionKey ? `${sessionKey}/${id}` : id;
  }
}

function textOf({ content }) {
  if (typeof content === "string") return content;
  const texts = content.filter((it) => it.type === "text").map((it) => it.text);
  return texts.join("\n");
}
