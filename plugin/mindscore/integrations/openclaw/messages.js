// OpenClaw's messages in the form of the OpenAI chat API, as its transports send them.

const SUMMARIES = {
  compactionSummary: "The conversation history before this point was compacted into the following summary:",
  branchSummary: "The following is a summary of a branch that this conversation came back from:",
};

/** Return false for what is kept in a session, and not told to the model. */
export function inContext(message) {
  return message.excludeFromContext !== true;
}

/** Return true for the message of run-time facts, which always goes last and is not kept. */
export function carriesRuntimeContext(message) {
  return message.role === "custom" && message.details?.runtimeContextCarrier === true;
}

/** Return messages of the chat API; throw for a role that is not known. */
export function toMessages(messages) {
  return messages.map(toMessage);
}

function toMessage(message) {
  const { role, content } = message;
  if (role === "user" || role === "custom") return { role: "user", content: toContent(content) };
  if (role === "toolResult") {
    return { role: "tool", tool_call_id: message.toolCallId, content: toContent(content) };
  }
  if (role === "assistant") return toAssistant(content);
  if (role in SUMMARIES) {
    const text = `${SUMMARIES[role]}\n\n<summary>\n${message.summary}\n</summary>`;
    return { role: "user", content: text };
  }
  throw new Error(`a message of the role ${role} is not known`);
}

function toContent(content) {
  if (typeof content === "string") return content;
  const parts = content.map((part) => {
    if (part.type === "text") return { type: "text", text: part.text };
    if (part.type === "image") {
      return { type: "image_url", image_url: { url: `data:${part.mimeType};base64,${part.data}` } };
    }
    throw new Error(`a part of the type ${part.type} is not known`);
  });
  return parts.length === 1 && parts[0].type === "text" ? parts[0].text : parts;
}

function toAssistant(content) {
  const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
  const of = (type) => parts.filter((it) => it.type === type);
  const text = of("text").map((it) => it.text).join("");
  const thoughts = of("thinking").map((it) => it.thinking).join("\n");
  const calls = of("toolCall").map(({ id, name, arguments: given }) => ({
    id,
    type: "function",
    function: { name, arguments: JSON.stringify(given) },
  }));
  return {
    role: "assistant",
    content: text || null,
    ...(thoughts && { reasoning_content: thoughts }),
    ...(calls.length > 0 && { tool_calls: calls }),
  };
}

const OPENING = "<!-- OPENCLAW-RELOCATABLE-BOUNDARY -->";
const CLOSING = "<!-- /OPENCLAW-RELOCATABLE-BOUNDARY -->";
const CACHE_BOUNDARY = "<!-- OPENCLAW_CACHE_BOUNDARY -->";

/**
 * Take the marks out of a system prompt that OpenClaw's transports take out.
 *
 * For servers of the chat API they also move what stands between two of them, a line of run-time
 * facts, to the first message of the user, where it does not spoil the server's prefix cache.
 * `moved.into(messages)` does that.
 */
export function relocate(prompt, api) {
  const text = prompt.replaceAll(`\n${CACHE_BOUNDARY}\n`, "\n").replaceAll(CACHE_BOUNDARY, "");
  const [start, end] = [text.indexOf(OPENING), text.indexOf(CLOSING)];
  const isClear =
    start >= 0 && end > start && text.lastIndexOf(OPENING) === start && text.lastIndexOf(CLOSING) === end;
  if (api !== "openai-completions" || !isClear) {
    const bare = text.replaceAll(`\n${OPENING}\n`, "\n").replaceAll(`\n${CLOSING}`, "");
    return { system: bare.replaceAll(OPENING, "").replaceAll(CLOSING, ""), moved: { into() {} } };
  }
  const facts = text.slice(start + OPENING.length, end).trim();
  const rest = [text.slice(0, start).trimEnd(), text.slice(end + CLOSING.length).trimStart()];
  const into = (messages) => append(messages.find((it) => it.role === "user"), facts);
  return { system: rest.filter(Boolean).join("\n"), moved: { into } };
}

function append(message, facts) {
  if (message === undefined || !facts) return;
  const { content } = message;
  if (typeof content === "string") message.content = `${content}\n\n${facts}`;
  else content.push({ type: "text", text: facts });
}
