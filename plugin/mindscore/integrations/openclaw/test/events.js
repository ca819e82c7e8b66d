// What OpenClaw 2026.9.6 tells its hooks, recorded from `openclaw agent --local`, with less text.
const CONTEXT = {
  agentId: "main",
  sessionKey: "agent:main:kitchen",
  sessionId: "d4ea80fe-645b-4b16-bca9-064f95e8960e",
  workspaceDir: "/home/nora/ws",
  trigger: "user",
};

export const FACTS = "Runtime: agent=main | session=agent:main:kitchen";

export const MEMORY_FILE = "# Memory\n\n- Nora drinks rooibos.\n- Her dog is called Max.";

const SYSTEM = (facts) => `<!-- openclaw:attempt:STABLE -->
You are a personal assistant running inside OpenClaw.
## Workspace Files (injected)
# Project Context
MEMORY.md: durable non-profile facts and decisions.
## /home/nora/ws/SOUL.md
[MISSING] Expected at: /home/nora/ws/SOUL.md
## /home/nora/ws/USER.md
# User

Name: Nora
## /home/nora/ws/MEMORY.md
${MEMORY_FILE}
<!-- /openclaw:attempt:STABLE -->
<!-- openclaw:attempt:DYNAMIC -->
## Temporal Context
- Current date: 2026-11-27${facts}
<!-- /openclaw:attempt:DYNAMIC -->`;

export const SENT_SYSTEM = SYSTEM("");

const carrier = {
  role: "custom",
  customType: "openclaw.runtime-context",
  content: "Active exec sessions: none",
  display: false,
  details: { source: "openclaw-runtime-context", runtimeContextCarrier: true },
};

export const assistant = (content, stopReason = "stop") => ({
  role: "assistant",
  content: typeof content === "string" ? [{ type: "text", text: content }] : content,
  api: "openai-completions",
  stopReason,
});

export const user = (text, stamp = "") => ({ role: "user", content: `${stamp}${text}` });

export const toolResult = (toolCallId, toolName, value) => ({
  role: "toolResult",
  toolCallId,
  toolName,
  content: [{ type: "text", text: typeof value === "string" ? value : JSON.stringify(value, null, 2) }],
  details: {},
});

export const call = (id, name, given) => ({ type: "toolCall", id, name, arguments: given });

export const STAMP = "[Fri 2026-11-27 17:54 UTC] ";

/** Return what the hooks hear of one run that asks `question`, and adds `answers` to the session. */
export function run(id, question, answers, { history = [], success = true, api = "openai-completions" } = {}) {
  const context = { ...CONTEXT, runId: id };
  const input = {
    runId: id,
    sessionId: CONTEXT.sessionId,
    provider: "echo",
    model: "echo",
    systemPrompt: SYSTEM(
      `\n<!-- OPENCLAW-RELOCATABLE-BOUNDARY -->\n${FACTS}\n<!-- /OPENCLAW-RELOCATABLE-BOUNDARY -->`,
    ),
    prompt: `${STAMP}${question}`,
    historyMessages: [...history, carrier],
    imagesCount: 0,
    tools: [{ name: "read" }],
  };
  const asked = { role: "user", content: [{ type: "text", text: question }] };
  const end = { runId: id, messages: [...history, asked, ...answers], success, durationMs: 483 };
  return [
    ["llm_input", input, context],
    ["model_call_started", { runId: id, callId: `${id}:model:1`, api }, context],
    ["agent_end", end, context],
  ];
}
