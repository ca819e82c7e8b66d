// The plugin's configuration: `url`, `keyEnv`, `enabled`.
import { isIP } from "node:net";

const DEFAULTS = {
  enabled: true,
  url: "http://127.0.0.1:4318",
  keyEnv: "MINDSCORE_COLLECT_KEY",
};

/** Return `{enabled, url, key}`; throw an error that names the key that is wrong. */
export function readConfig(given, environment) {
  for (const name of Object.keys(given)) {
    if (!(name in DEFAULTS)) throw new Error(`unknown key ${name} in the plugin's configuration`);
  }
  const { enabled, url, keyEnv } = { ...DEFAULTS, ...given };
  if (typeof enabled !== "boolean") throw new Error("enabled: expected true or false");
  if (typeof keyEnv !== "string") throw new Error("keyEnv: expected the name of a variable");
  const address = readAddress(url);
  const key = (environment[keyEnv] ?? "").trim();
  if (/[^\x21-\x7e]/.test(key)) throw new Error(`the key in ${keyEnv} holds white space or is not ASCII`);
  if (key && address.protocol === "http:" && !isLoopback(address.hostname)) {
    throw new Error(
      `url: ${address.origin} is plain http, over which anybody on the way reads the key: ` +
        "use https, or a tunnel to this machine's loopback",
    );
  }
  return { enabled, url: address, key };
}

function readAddress(url) {
  let address;
  try {
    address = new URL(url);
  } catch {
    throw new Error("url: expected the http:// or https:// address of mindscore collect");
  }
  if (!["http:", "https:"].includes(address.protocol)) {
    throw new Error("url: expected an http:// or https:// address");
  }
  if (address.username || address.password || address.search || address.hash) {
    throw new Error("url: expected no user, query or fragment; a key is read from the variable keyEnv");
  }
  // The server's own address may stand below a path, behind a reverse proxy.
  address.pathname = `${address.pathname.replace(/\/+$/, "")}/v1/turns`;
  return address;
}

/** Return true if `host`, as it stands in an address, is this machine. */
export function isLoopback(host) {
  const bare = host.replace(/^\[|\]$/g, "");
  if (isIP(bare) === 4) return bare.startsWith("127.");
  return bare === "::1" || bare === "localhost";
}
