// OpenClaw's plugin: hears each turn by the hooks, and posts it to `mindscore collect`.
import { readConfig } from "./config.js";
import { Outbox } from "./outbox.js";
import { Runs } from "./runs.js";

// How long OpenClaw's own shutdown may wait for turns that are still to be sent.
const DRAIN_MS = 2000;

export default {
  id: "mindscore",
  name: "mindscore",
  description: "Sends each turn to a mindscore collect server",

  register(api) {
    const warn = (message) => api.logger?.warn?.(`mindscore: ${message}`);
    let config;
    try {
      config = readConfig(api.pluginConfig ?? {}, process.env);
    } catch (error) {
      warn(`${error.message}. No turn is sent.`);
      return;
    }
    if (!config.enabled) return;
    const outbox = new Outbox({ ...config, warn });
    const runs = new Runs();

    // A hook that throws is logged by the host at every turn: once is enough.
    const told = new Set();
    const listen = (hook, handler) => {
      api.on(hook, (event, context) => {
        try {
          handler(event, context ?? {});
        } catch (error) {
          if (!told.has(hook)) warn(`a turn is left out: ${error.message} (${hook})`);
          told.add(hook);
        }
      });
    };

    listen("llm_input", (event, context) => runs.begin(event, context));
    listen("model_call_started", (event) => runs.call(event));
    listen("agent_end", (event, context) => {
      const run = runs.end(event, context);
      if (run === undefined) return;
      // The agent goes on first: what is left is done when it has nothing else to do.
      outbox.expect(() => run.turn());
    });
    api.on("gateway_stop", () => outbox.drain(DRAIN_MS));
  },
};
