// An agent on the Vercel AI SDK with its telemetry: two questions, and a third that takes a tool.
import { OpenTelemetry } from "@ai-sdk/otel";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { NodeSDK } from "@opentelemetry/sdk-node";
import { generateText, isStepCount, jsonSchema, registerTelemetry, streamText, tool } from "ai";

// Where spans go, and how, is in the variables OTEL_EXPORTER_OTLP_*.
const sdk = new NodeSDK();
sdk.start();
registerTelemetry(
  new OpenTelemetry({
    enrichSpan: ({ runtimeContext }) => ({ "gen_ai.conversation.id": runtimeContext?.chat }),
  }),
);

const [baseURL, chat] = process.argv.slice(2);
const model = createOpenAICompatible({ name: "local", baseURL, apiKey: "none" })("echo");
const system = "You help Nora.\n\nWhat you know:\n- Nora drinks rooibos.\n- Her dog is called Max.";
const weather = tool({
  description: "Tell the weather of a place.",
  inputSchema: jsonSchema({ type: "object", properties: { place: { type: "string" } } }),
  execute: async ({ place }) => `It rains in ${place}.`,
});
const telemetry = { functionId: "nora", includeRuntimeContext: { chat: true } };
const messages = [];

async function ask(question, speak, options = {}) {
  messages.push({ role: "user", content: question });
  const runtimeContext = { chat };
  const answer = await speak({ model, system, messages, telemetry, runtimeContext, ...options });
  const text = await answer.text;
  messages.push(...(await answer.response).messages);
  console.log(text);
}

await ask("What shall I drink?", generateText);
await ask("What is my dog called?", async (options) => {
  const streamed = streamText(options);
  await streamed.consumeStream();
  return streamed;
});
await ask("Is it raining on Max?", generateText, { tools: { weather }, stopWhen: isStepCount(2) });
await sdk.shutdown();
