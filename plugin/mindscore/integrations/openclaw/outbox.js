// Sends turns one after the other, from a queue that is bounded and in memory.
import http from "node:http";
import https from "node:https";

const LIMITS = {
  turns: 200,
  bytes: 64 * 2 ** 20,
  timeoutMs: 10_000,
  firstDelayMs: 500,
  longestDelayMs: 60_000,
  // How often a turn is tried that a server which is there fails on.
  attempts: 8,
};

// Statuses that may pass; others are for ever, so that the turn is dropped.
const MAY_PASS = new Set([408, 425, 429]);
const ANSWER_BYTES = 4096;

// Errors of a server that is not there, which is no fault of the turn.
const AWAY = new Set(["ECONNREFUSED", "EAI_AGAIN", "EHOSTUNREACH", "ENETUNREACH", "ENOTFOUND", "ETIMEDOUT"]);

class Refused extends Error {}

export class Outbox {
  #waiting = [];
  #bytes = 0;
  #sending = false;
  #attempts = 0;
  #dropped = 0;
  #told = new Set();
  #timer;
  #idle = [];
  #request;

  /** `url` is the whole address; `warn` takes a line; `limits` replaces some of the limits. */
  constructor({ url, key, warn, limits = {} }) {
    this.url = url;
    this.warn = warn;
    this.limits = { ...LIMITS, ...limits };
    this.headers = { "Content-Type": "application/json", "User-Agent": "mindscore-openclaw" };
    if (key) this.headers.Authorization = `Bearer ${key}`;
    // Agents of its own: the global ones may be set to a proxy, which would read the conversation.
    this.protocol = url.protocol === "https:" ? https : http;
    this.agent = new this.protocol.Agent({ keepAlive: true, maxSockets: 1 });
  }

  /** How many turns wait, the one on its way included. */
  get size() {
    return this.#waiting.length;
  }

  /** Take the turn that `make` returns, later; `undefined` is no turn. Never throws or waits. */
  expect(make) {
    setImmediate(() => {
      try {
        const turn = make();
        if (turn !== undefined) this.push(Buffer.from(JSON.stringify(turn)));
      } catch (error) {
        this.#tell(error.message, `a turn is left out: ${error.message}`);
      }
    });
  }

  /** Queue the body of a turn; the oldest ones make room for it. */
  push(body) {
    const { turns: most, bytes } = this.limits;
    if (body.length > bytes) {
      this.#drop(`a turn of ${body.length} bytes is too large to be sent`);
      return;
    }
    while (this.size >= most || this.#bytes + body.length > bytes) {
      // Not the one that is on its way, while there is another.
      this.#remove(this.#waiting[this.#sending && this.size > 1 ? 1 : 0]);
      this.#drop(`more than ${most} turns or ${bytes} bytes wait: the oldest are dropped`);
    }
    this.#waiting.push({ body });
    this.#bytes += body.length;
    this.#next();
  }

  /** Wait until all is sent, at most `ms`; what is left then is lost. */
  async drain(ms) {
    // Turns that were expected just now are queued first.
    await new Promise((resolve) => setImmediate(resolve));
    if (this.size > 0) {
      let timer;
      const late = new Promise((resolve) => (timer = setTimeout(resolve, ms)));
      this.#wake();
      await Promise.race([new Promise((resolve) => this.#idle.push(resolve)), late]);
      clearTimeout(timer);
    }
    clearTimeout(this.#timer);
    if (this.size > 0) this.warn(`${turns(this.size)} could not be sent before the end`);
    this.#waiting = [];
    this.#bytes = 0;
    this.#request?.destroy();
    this.agent.destroy();
  }

  #remove(turn) {
    const at = this.#waiting.indexOf(turn);
    if (at < 0) return;
    this.#waiting.splice(at, 1);
    this.#bytes -= turn.body.length;
  }

  #drop(why) {
    this.#dropped += 1;
    this.#tell(why.replace(/\d+/g, "N"), why);
  }

  /** Log a line, if one of its kind was not logged since the last turn that was taken. */
  #tell(kind, line) {
    if (this.#told.has(kind)) return;
    this.#told.add(kind);
    this.warn(line);
  }

  #wake() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#next();
  }

  #next() {
    if (this.#sending || this.#timer !== undefined) return;
    const turn = this.#waiting[0];
    if (turn === undefined) {
      this.#idle.splice(0).forEach((resolve) => resolve());
      return;
    }
    this.#sending = true;
    this.#post(turn.body).then(
      () => this.#taken(turn),
      (error) => this.#failed(turn, error),
    );
  }

  #taken(turn) {
    this.#remove(turn);
    this.#sending = false;
    this.#attempts = 0;
    if (this.#dropped > 0) this.warn(`${this.url.origin} takes turns again; lost: ${turns(this.#dropped)}`);
    this.#dropped = 0;
    this.#told.clear();
    this.#next();
  }

  #failed(turn, error) {
    this.#sending = false;
    if (!this.#waiting.includes(turn)) {
      // It made room for others, or all ended.
      this.#attempts = 0;
      this.#next();
      return;
    }
    this.#attempts += 1;
    const isFinal = error instanceof Refused;
    const isWornOut = !error.isAway && this.#attempts >= this.limits.attempts;
    if (isFinal || isWornOut) {
      this.#remove(turn);
      this.#attempts = 0;
      this.#drop(`${this.url.origin} does not take a turn: ${error.message}`);
      this.#next();
      return;
    }
    this.#tell("unreachable", `${this.url.origin}: ${error.message}; turns wait, and are sent later`);
    const doubled = this.limits.firstDelayMs * 2 ** Math.min(this.#attempts - 1, 20);
    const delay = Math.min(error.retryAfterMs ?? doubled, this.limits.longestDelayMs);
    // Half of it at random, so that several agents do not come all at once.
    this.#timer = setTimeout(() => this.#wake(), delay * (0.5 + Math.random() / 2));
    this.#timer.unref();
  }

  /** Post one body; resolve once the server has taken it. */
  #post(body) {
    return new Promise((resolve, reject) => {
      const headers = { ...this.headers, "Content-Length": body.length };
      const options = { method: "POST", agent: this.agent, headers };
      // Redirects are not followed: the answer of one is a refusal.
      const request = this.protocol.request(this.url, options, (response) => {
        let read = 0;
        response.on("data", (piece) => {
          read += piece.length;
          if (read > ANSWER_BYTES) request.destroy(new Error("its answer does not end"));
        });
        response.on("error", reject);
        response.on("end", () => settle(response, resolve, reject));
      });
      this.#request = request;
      const late = () => request.destroy(new Error(`no answer in ${this.limits.timeoutMs / 1000} s`));
      const timer = setTimeout(late, this.limits.timeoutMs);
      request.on("close", () => {
        clearTimeout(timer);
        reject(new Error("the connection was closed"));
      });
      request.on("error", (error) => {
        reject(Object.assign(new Error(error.code ?? error.message), { isAway: AWAY.has(error.code) }));
      });
      request.end(body);
    });
  }
}

function turns(count) {
  return count === 1 ? "1 turn" : `${count} turns`;
}

function settle(response, resolve, reject) {
  const { statusCode: status, headers } = response;
  if (status >= 200 && status < 300) {
    resolve();
  } else if (MAY_PASS.has(status) || status >= 500) {
    const seconds = Number.parseFloat(headers["retry-after"]);
    const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
    reject(Object.assign(new Error(`HTTP status ${status}`), { status, retryAfterMs }));
  } else {
    const hint = status === 401 || status === 403 ? "; is the key in the variable keyEnv right?" : "";
    reject(new Refused(`HTTP status ${status}${hint}`));
  }
}
