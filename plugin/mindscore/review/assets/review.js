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
document.addEventListener("submit", (event) => {
  if (event.target.method !== "post" || event.target.matches("[data-run], [data-stop]")) return;
  if (sent) event.preventDefault();
  sent = true;
});

// Looked up each time: the threshold may bring another candidate.
const edit = () => document.querySelector("[data-edit]");
const typed = () => edit()?.querySelector("textarea");
const isChanged = () => Boolean(edit()) && typed().value !== typed().dataset.said;

function refuse() {
  const refused = document.querySelector("[data-refused]");
  refused.textContent = "The text is changed: accept it (a), or put it back (Esc).";
  refused.hidden = false;
  refused.scrollIntoView({ block: "nearest" });
}

function putBack() {
  typed().value = typed().dataset.said;
  edit().open = false;
  document.querySelector("[data-refused]").hidden = true;
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

// -- the threshold ------------------------------------------------------------------------------

const threshold = document.querySelector("[data-threshold]");
if (threshold) {
  const nats = threshold.querySelector("[type=number]"), slider = threshold.querySelector("[type=range]");
  const said = threshold.querySelector("[role=status]");
  let wanted = null;

  const put = (from, id) => {
    const old = document.getElementById(id), made = from.getElementById(id);
    if (old && made && old.innerHTML !== made.innerHTML) old.replaceWith(made);
  };
  const shownId = (from) => from.querySelector("[data-id]")?.dataset.id;

  function show(found, query) {
    for (const id of ["filters", "decided"]) put(found, id);
    const words = found.getElementById("above").textContent;
    if (said.textContent !== words) said.textContent = words;
    if (shownId(document) && shownId(document) === shownId(found)) {
      // What was opened or typed within it stays.
      for (const id of ["steps", "others"]) put(found, id);
    } else if (!isChanged()) {
      put(found, "shown");
    }
    for (const field of document.querySelectorAll("[type=hidden][name=threshold]")) {
      field.value = query.get("threshold");
    }
    history.replaceState(null, "", `/candidates?${query}`);
  }

  // One request at a time, and the latest value in any case.
  async function follow() {
    const isBusy = wanted !== null;
    wanted = new URLSearchParams(new FormData(threshold));
    if (isBusy) return;
    try {
      for (let query = null; query !== wanted;) {
        query = wanted;
        const answer = await fetch(`/candidates?${query}`);
        if (!answer.ok) throw new Error(String(answer.status));
        show(new DOMParser().parseFromString(await answer.text(), "text/html"), query);
      }
    } catch {
      said.textContent = "The list could not be brought: is mindscore review still running?";
    }
    wanted = null;
  }

  slider.closest("[data-slider]").hidden = false;
  threshold.querySelector("button").hidden = true;
  slider.addEventListener("input", () => { nats.value = slider.value; follow(); });
  nats.addEventListener("input", () => {
    if (!nats.validity.valid) return;
    slider.value = nats.value;
    follow();
  });
  threshold.addEventListener("submit", (event) => { event.preventDefault(); follow(); });
}

// -- keyboard shortcuts -------------------------------------------------------------------------

const keys = document.querySelector("[data-keys]");
if (keys) {
  const box = keys.querySelector("input"), NAME = "mindscore-review-keys";
  const FIELD = "textarea, select, input:not([type=checkbox], [type=range])";
  keys.hidden = false;
  box.checked = localStorage.getItem(NAME) !== "off";
  box.addEventListener("change", () => localStorage.setItem(NAME, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches(FIELD);
    // Escape is how a browser is told not to wait for an answer.
    if (event.key === "Escape") sent = false;
    if (typing && event.key === "Escape") event.target.blur();
    const modified = event.ctrlKey || event.metaKey || event.altKey || event.shiftKey;
    if (typing || modified || event.repeat || event.isComposing || !box.checked || sent) return;
    if (event.key === "Escape" && isChanged()) {
      putBack();
    } else if (event.key === "e" && edit()) {
      edit().open = true;
      typed().focus();
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
    list.earlier = make("p", "small muted");
    list.earlier.hidden = true;
  }
  const lost = make("p", "notice bad"), failed = make("p", "notice bad");
  lost.hidden = failed.hidden = true;
  panel.replaceChildren(
    said, lines, scores.earlier, scores, candidates.earlier, candidates, end, failed, lost);
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
    waitingToShow.splice(0, Infinity, ...waitingToShow.filter((it) => it.list !== list));
    list.replaceChildren();
    list.hidden = list.earlier.hidden = true;
  }

  const stop = live.querySelector("[data-stop]"), runs = live.querySelector("[data-run]");
  function show(state) {
    live.dataset.state = state;
    // The focus must not be lost with the button that has it.
    if (state === "ended" && stop.contains(document.activeElement)) {
      runs.querySelector("button").focus();
    }
    stop.hidden = state !== "running";
  }

  // Thousands may come at once: they are drawn together, and the latest alone stay.
  const MOST_SHOWN = 200, waitingToShow = [];
  let drawing = false;

  function draw() {
    drawing = false;
    const ends = new Map();
    for (const { list, number, nats, text, className } of waitingToShow.splice(0)) {
      const item = make("li");
      item.value = number;
      item.append(make("span", "number", `${nats} nats`), make("span", className, text));
      if (!ends.has(list)) ends.set(list, []);
      ends.get(list).push(item);
    }
    for (const [list, items] of ends) {
      list.append(...items.slice(-MOST_SHOWN));
      while (list.children.length > MOST_SHOWN) list.firstChild.remove();
      const earlier = list.firstChild.value - 1;
      list.earlier.textContent = `${earlier.toLocaleString("en")} earlier ones are not shown.`;
      list.earlier.hidden = !earlier;
      list.hidden = false;
      list.scrollTop = list.scrollHeight;
    }
  }

  function add(list, number, nats, text, className) {
    waitingToShow.push({ list, number, nats, text, className });
    if (waitingToShow.length > 4 * MOST_SHOWN) {
      const latest = [scores, candidates].map(
        (it) => waitingToShow.filter((found) => found.list === it).slice(-MOST_SHOWN));
      waitingToShow.splice(0, Infinity, ...latest.flat());
    }
    if (!drawing) requestAnimationFrame(draw);
    drawing = true;
  }

  const told = {
    dispatched({ said: text, first, restarted }) {
      if (first) {
        for (const it of [said, lines, end]) it.replaceChildren();
        clear(scores);
        clear(candidates);
        show("running");
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
    score({ number, key, nats }) {
      add(scores, number, nats, key, "key");
    },
    candidate({ number, entry_idx, nats, text }) {
      add(candidates, number, nats, `#${entry_idx} ${text}`, "text");
      announce(`Candidate: response ${entry_idx}, ${nats} nats`);
    },
    stopped({ said: text }) {
      said.append(make("p", "text", text));
      announce(text);
    },
    ended({ lines: results, errors }) {
      draw();
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
      show("ended");
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
  for (const [form, problem] of [
    [runs, "That could not be started."], [stop, "That could not be stopped."],
  ]) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const body = new URLSearchParams(new FormData(form, event.submitter));
      let why = "";
      try {
        const answer = await fetch(form.action, { method: "POST", body, redirect: "manual" });
        if (answer.type !== "opaqueredirect") why = problem;
      } catch {
        why = "The server does not answer: is mindscore review still running?";
      }
      failed.textContent = why;
      failed.hidden = !why;
      if (why) announce(why);
    });
  }
}
