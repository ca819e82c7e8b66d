// Entries of a Markdown file of memories, under the keys that mindscore itself gives them.
import { createHash } from "node:crypto";

const SLUG_WORDS = 6;
const SLUG_CHARACTERS = 40;
const HAS_WORDS = /[\p{L}\p{N}]/u;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const ITEM = /^([ \t]*)(?:[-*+]|\d{1,9}[.)])([ \t]+)(?=\S)/;
const FENCE = /^ *(```+|~~~+)/;
// Lines that part entries: none, a rule, and the mark that Hermes parts them with.
const BREAK = /^\s*(?:§|(?:[-*_][ \t]*){3,})?$/;

/** Return `[key, text]` of each list item, paragraph and block of code. */
export function entriesOf(text) {
  const entries = [];
  const headings = [];
  let lines = [];
  const close = () => {
    const entry = lines.join("\n").trim();
    lines = [];
    if (HAS_WORDS.test(entry)) entries.push([[...headings.filter(Boolean), slug(entry)].join("/"), entry]);
  };
  const head = (level, title) => {
    headings.length = Math.min(headings.length, level);
    headings[level] = slug(title, { whole: true });
  };
  let fence;
  for (const line of text.replaceAll("\r\n", "\n").replace(/^---\n[\s\S]*?\n---\n/, "").split("\n")) {
    const mark = FENCE.exec(line)?.[1];
    if (fence !== undefined) {
      if (mark?.startsWith(fence)) fence = close();
      else lines.push(line);
      continue;
    }
    if (mark !== undefined) {
      close();
      fence = mark;
      continue;
    }
    const heading = HEADING.exec(line);
    const underline = lines.length > 0 ? /^ {0,3}(=+|-+)[ \t]*$/.exec(line) : null;
    if (heading !== null) {
      close();
      head(heading[1].length, heading[2] ?? "");
    } else if (underline !== null) {
      head(underline[1][0] === "=" ? 1 : 2, lines.splice(0).join(" "));
    } else if (BREAK.test(line)) {
      close();
    } else {
      const bare = line.replace(/^ {0,3}(?:> ?)+/, "");
      const item = ITEM.exec(bare);
      if (item !== null) close();
      lines.push(item === null ? bare.trimStart() : bare.slice(item[0].length));
    }
  }
  close();
  return entries;
}

/** Return a readable key made of a text: its first words, and a hash if it holds more. */
export function slug(text, { whole = false } = {}) {
  const said = text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
  const words = said.match(/[\p{L}\p{N}_]+/gu) ?? [];
  const joined = Array.from(words.slice(0, SLUG_WORDS).join("-")).slice(0, SLUG_CHARACTERS).join("");
  const short = joined.replace(/^[-_]+|[-_]+$/g, "");
  if (whole || (short && short === said.replace(/\.$/, "").replaceAll(" ", "-"))) return short;
  const digest = createHash("sha256").update(text.trim(), "utf8").digest("hex").slice(0, 6);
  return short ? `${short}-${digest}` : digest;
}
