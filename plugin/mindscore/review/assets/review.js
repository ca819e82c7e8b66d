"use strict";

// Live progress, the heat map, keyboard shortcuts. Without any of it, the page's links and forms
// do all there is to do. What others wrote is only ever set as text.

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// -- the heat map -------------------------------------------------------------------------------

for (const element of document.querySelectorAll("[data-matrix]")) {
  const data = document.getElementById(element.dataset.matrix);
  mindscoreMatrix(element, JSON.parse(data.textContent));
}

// -- deciding -----------------------------------------------------------------------------------

// While a form is on its way, nothing else is decided, and no key leads elsewhere.
let sent = false;
addEventListener("pageshow", () => { sent = false; });
for (const form of document.querySelectorAll("form[method=post]:not([data-run])")) {
  form.addEventListener("submit", (event) => {
    if (sent) event.preventDefault();
    sent = true;
  });
}

const edit = document.querySelector("[data-edit]"), typed = edit?.querySelector("textarea");
const refused = document.querySelector("[data-refused]");
const isChanged = () => Boolean(typed) && typed.value !== typed.dataset.said;

function refuse() {
  refused.textContent = "The text is changed: accept it (a), or put it back (Esc).";
  refused.hidden = false;
  refused.scrollIntoView({ block: "nearest" });
}

function putBack() {
  typed.value = typed.dataset.said;
  edit.open = false;
  refused.hidden = true;
}

function press(key) {
  const selector = key === "a" && isChanged()
    ? "button[value=edited]" : `[data-key=${CSS.escape(key)}]`;
  const meant = document.querySelector(selector);
  if (!meant) return false;
  if (key !== "a" && isChanged()) refuse();
  else meant.click();
  return true;
}

// -- keyboard shortcuts -------------------------------------------------------------------------

const keys = document.querySelector("[data-keys]");
if (keys) {
  const box = keys.querySelector("input"), NAME = "mindscore-review-keys";
  keys.hidden = false;
  box.checked = localStorage.getItem(NAME) !== "off";
  box.addEventListener("change", () => localStorage.setItem(NAME, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("textarea, select, input:not([type=checkbox])");
    // Escape is how a browser is told not to wait for an answer.
    if (event.key === "Escape") sent = false;
    if (typing && event.key === "Escape") event.target.blur();
    const modified = event.ctrlKey || event.metaKey || event.altKey;
    if (typing || modified || event.repeat || event.isComposing || !box.checked || sent) return;
    if (event.key === "Escape" && isChanged()) {
      putBack();
    } else if (event.key === "e" && edit) {
      edit.open = true;
      typed.focus();
    } else if (!press(event.key)) {
      return;
    }
    event.preventDefault();
  });
}

// -- live progress ------------------------------------------------------------------------------

const live = document.querySelector("[data-live]");
if (live) {
  const panel = live.querySelector("[data-panel]"), status = live.querySelector("[data-status]");
  const said = make("div", "stack"), lines = make("div", "live-lines"), end = make("div", "stack");
  const scores = make("ol", "found"), candidates = make("ol", "found");
  for (const [list, name] of [[scores, "Memories scored"], [candidates, "Candidates found"]]) {
    list.tabIndex = 0;
    list.setAttribute("aria-label", name);
    list.hidden = true;
  }
  const lost = make("p", "notice bad"), failed = make("p", "notice bad");
  lost.hidden = failed.hidden = true;
  panel.replaceChildren(said, lines, scores, candidates, end, failed, lost);
  const SPOKEN_EVERY_MS = 2000;
  let waiting = null, words = "", source = null;

  // Politely: at once where nothing was said lately, else the latest of what there is to say.
  function announce(text) {
    words = text;
    if (waiting) return;
    status.textContent = words;
    waiting = setTimeout(() => {
      waiting = null;
      if (status.textContent !== words) announce(words);
    }, SPOKEN_EVERY_MS);
  }

  function clear(list) {
    list.replaceChildren();
    list.hidden = true;
  }

  function add(list, nats, text, className) {
    const item = make("li");
    item.append(make("span", "number", `${nats} nats`), make("span", className, text));
    list.append(item);
    list.hidden = false;
    list.scrollTop = list.scrollHeight;
  }

  const told = {
    dispatched({ said: text, first, restarted }) {
      if (first) {
        for (const it of [said, lines, end]) it.replaceChildren();
        clear(scores);
        clear(candidates);
        live.dataset.state = "running";
      }
      if (restarted) clear(candidates);
      said.append(make("p", "text", text));
      announce(text);
    },
    activity({ lines: open }) {
      lines.replaceChildren(...open.flatMap(({ text, done, total }) => {
        const line = make("p", "text", text);
        if (!total) return [line];
        const bar = make("progress");
        bar.max = total;
        bar.value = done ?? 0;
        bar.setAttribute("aria-label", text);
        return [line, bar];
      }));
      if (open.length) announce(open.map((it) => it.text).join(", "));
    },
    score({ key, nats }) {
      add(scores, nats, key, "key");
    },
    candidate({ entry_idx, nats, text }) {
      add(candidates, nats, `#${entry_idx} ${text}`, "text");
      announce(`Candidate: response ${entry_idx}, ${nats} nats`);
    },
    ended({ lines: results, errors }) {
      const parts = results.map((it) => make("p", "notice good text", it));
      parts.push(...errors.map((it) => make("p", "notice bad text", it)));
      const next = make("p", "small"), link = make("a", "", "Show it in the list");
      link.href = "/runs";
      next.append(link);
      if (candidates.children.length) {
        const review = make("a", "", "Review the candidates");
        review.href = "/candidates";
        next.append(" · ", review);
      }
      end.replaceChildren(...parts, next);
      live.dataset.state = "ended";
      announce(`Ended. ${[...results, ...errors].join(" ")}`);
    },
  };

  // Browsers keep few connections to one server: a page that nobody looks at needs none.
  let seen = 0;
  function follow() {
    if (document.hidden) {
      source?.close();
      source = null;
      return;
    }
    if (source) return;
    source = new EventSource(`/events?after=${seen}`);
    for (const [kind, tell] of Object.entries(told)) {
      source.addEventListener(kind, (event) => {
        seen = Number(event.lastEventId);
        tell(JSON.parse(event.data));
      });
    }
    source.addEventListener("open", () => { lost.hidden = true; });
    source.addEventListener("error", (event) => {
      const text = event.target.readyState === EventSource.CLOSED
        ? "The connection has ended: open the address that mindscore review prints."
        : "The connection is lost; trying again.";
      if (lost.hidden || lost.textContent !== text) announce(text);
      lost.textContent = text;
      lost.hidden = false;
    });
  }
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => { source?.close(); source = null; });
  addEventListener("pageshow", follow);
  follow();

  // The answer comes as an event: the page need not be loaded again.
  live.querySelector("[data-run]").addEventListener("submit", async (event) => {
    event.preventDefault();
    const fields = new URLSearchParams(new FormData(event.target, event.submitter));
    let why = "";
    try {
      const answer = await fetch("/run", { method: "POST", body: fields, redirect: "manual" });
      if (answer.type !== "opaqueredirect") why = "That could not be started.";
    } catch {
      why = "The server does not answer: is mindscore review still running?";
    }
    failed.textContent = why;
    failed.hidden = !why;
    if (why) announce(why);
  });
}
