"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SEVERAL = 15, SLIGHT = 0.05, CLEAR = 0.5, LARGE = 2;
  const columns = data.responses.length;
  const nats = new Intl.NumberFormat("en", {
    signDisplay: "exceptZero", minimumFractionDigits: 2, maximumFractionDigits: 2,
  });
  const element = (id) => document.getElementById(id);

  function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // -- the words of a response ------------------------------------------------------------------

  const offsets = new Map();
  let units = new Int16Array(0);
  if (data.tokens) {
    const bytes = Uint8Array.from(atob(data.tokens.data), (it) => it.charCodeAt(0));
    units = new Int16Array(bytes.buffer);
    const lengths = data.responses.map(
      ({ cuts }) => cuts && cuts.reduce((sum, it, at) => (at % 2 ? sum + it : sum), 0)
    );
    let offset = 0;
    data.tokens.cells.forEach((cells, row) => {
      for (const column of cells) {
        offsets.set(row * columns + column, offset);
        offset += lengths[column];
      }
    });
  }

  function marked(text, change, changes, isEnd) {
    const size = Math.abs(change) < CLEAR ? 1 : Math.abs(change) < LARGE ? 2 : 3;
    const mark = make("mark", `${change > 0 ? "more" : "less"}-${size}${isEnd ? " end" : ""}`, text);
    const each = changes.length > 1 ? ` (its tokens: ${changes.map(nats.format).join(", ")})` : "";
    mark.told = `${nats.format(change)} nats${each}`;
    mark.tabIndex = -1;
    return mark;
  }

  // A response with the words marked that the memory made likelier or less likely; null: unknown.
  function spoken(row, column) {
    const { cuts, text } = data.responses[column];
    let offset = offsets.get(row * columns + column);
    if (!cuts || offset === undefined) return null;
    const whole = make("span", "spoken");
    let at = 0, plain = "";
    for (let word = 0; word < cuts.length; word += 2) {
      const [length, count] = [cuts[word], cuts[word + 1]];
      const changes = Array.from(units.subarray(offset, offset + count), (it) => it * data.step);
      const change = changes.reduce((sum, it) => sum + it, 0);
      const said = text.slice(at, at + length);
      offset += count;
      at += length;
      if (Math.abs(change) < SLIGHT) {
        plain += said;
        continue;
      }
      const bare = said.trimStart();
      plain += said.slice(0, said.length - bare.length);
      if (plain) whole.append(plain);
      plain = "";
      if (bare) whole.append(marked(bare, change, changes, false));
      else if (!length) {
        whole.append(" ", marked(count > 2 ? "(what is not shown)" : "(end)", change, changes, true));
      }
    }
    if (plain) whole.append(plain);
    const first = whole.querySelector("mark");
    if (first) first.tabIndex = 0;
    return whole;
  }

  const tip = element("tip");

  function showTip(mark) {
    hideTip();
    tip.textContent = mark.told;
    tip.hidden = false;
    mark.setAttribute("aria-describedby", "tip");
    const box = mark.getBoundingClientRect();
    const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 6;
    tip.style.left = `${Math.max(8, left) + window.scrollX}px`;
    tip.style.top = `${(above < 0 ? box.bottom + 6 : above) + window.scrollY}px`;
  }

  function hideTip() {
    tip.hidden = true;
    document.querySelector("mark[aria-describedby]")?.removeAttribute("aria-describedby");
  }

  const markOf = (event) => (event.target instanceof Element ? event.target.closest("mark") : null);
  for (const kind of ["pointerover", "focusin", "click"]) {
    document.addEventListener(kind, (event) => {
      const mark = markOf(event);
      if (mark) showTip(mark);
      else if (kind !== "focusin") hideTip();
    });
  }
  document.addEventListener("focusout", (event) => {
    if (markOf(event)) hideTip();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const mark = markOf(event);
    if (!step || !mark) return;
    const all = [...mark.closest(".spoken").querySelectorAll("mark")];
    const next = all[all.indexOf(mark) + step];
    if (!next) return;
    mark.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    event.preventDefault();
  });

  // -- a memory that was chosen -----------------------------------------------------------------

  let showAll = () => {};
  const rows = [...document.querySelectorAll("#ranking tbody tr")];
  const rowOf = (tr) => Number(tr.dataset.row);

  function within(row, column) {
    return Math.abs(data.signed[row][column]) <= mindscoreLimit(data, row, column).limit;
  }

  function responseOf(row, column) {
    const { entry_idx: index, text } = data.responses[column];
    const signed = data.signed[row][column];
    const item = make("div", "response"), head = make("p", "small"), said = make("p", "text");
    head.append(make("span", `amount ${signed > 0 ? "more" : "less"}`, `${nats.format(signed)} nats`));
    const link = make("a", "", `response #${index}`);
    link.href = `#turn-${index}`;
    head.append(` ${signed > 0 ? "likelier" : "less likely"}: `, element("turns") ? link : link.text);
    said.append(spoken(row, column) || text);
    item.append(head, said);
    return item;
  }

  function unmarked(row, clear) {
    if (!data.memories[row].told) {
      return "The words are not marked: the server gives no log-probabilities of single tokens, "
        + "or the row is from the store, which keeps the totals only.";
    }
    const without = clear.filter(({ column }) => !offsets.has(row * columns + column)).length;
    if (!without) return "";
    const why = data.without_words || (data.tokens.left_out
      ? "the file would be too large with them"
      : "their words and their tokens could not be matched");
    return `${without} of these ${clear.length} responses are not marked: ${why}.`;
  }

  function choose(row, goThere) {
    const memory = data.memories[row];
    for (const tr of rows) {
      const isIt = rowOf(tr) === row;
      tr.classList.toggle("chosen", isIt);
      tr.querySelector(".choose")?.setAttribute("aria-pressed", isIt);
    }
    const title = element("chosen-title"), body = element("chosen-body");
    title.replaceChildren("What ", make("span", "key", memory.key), " did");
    const clear = data.signed[row]
      .map((signed, column) => ({ size: Math.abs(signed ?? 0), column }))
      .filter(({ size, column }) => size > data.least && !within(row, column))
      .sort((one, other) => other.size - one.size);
    const list = make("div", "stack"), more = make("button", "", "");
    let shown = 0;
    const showMore = () => {
      const next = clear.slice(shown, shown + SEVERAL);
      list.append(...next.map(({ column }) => responseOf(row, column)));
      shown += next.length;
      more.hidden = shown >= clear.length;
      more.textContent = `Show ${Math.min(SEVERAL, clear.length - shown)} more of ${clear.length}`;
    };
    showAll = () => {
      while (shown < clear.length) showMore();
    };
    more.type = "button";
    more.addEventListener("click", showMore);
    showMore();
    const parts = [make("p", "text memory-text", memory.text)];
    if (!clear.length) {
      const assumed = memory.is_assumed ? " (assumed, not measured)" : "";
      parts.push(make("p", "muted", `It made no difference beyond noise${assumed}.`));
    } else {
      const legend = make("p", "small muted"), warning = unmarked(row, clear);
      legend.append(
        make("mark", "more-2", "likelier"), " with it, ", make("mark", "less-2", "less likely"),
        " with it; the number is shown on hover and focus."
      );
      if (data.memories[row].told) parts.push(legend);
      if (warning) parts.push(make("p", "small muted", warning));
    }
    body.replaceChildren(...parts, list, more);
    if (!goThere) return;
    element("chosen").scrollTop = 0;
    if (matchMedia("(max-width: 62rem)").matches) {
      title.focus({ preventScroll: true });
      element("chosen").scrollIntoView({ block: "start" });
    }
  }

  for (const tr of rows) {
    tr.querySelector(".choose")?.addEventListener("click", () => choose(rowOf(tr), true));
  }

  // From a response of the conversation to its memory; the link itself leads to the row.
  for (const link of document.querySelectorAll("#turns a.key")) {
    const row = rowOf(document.querySelector(link.hash));
    link.addEventListener("click", () => {
      if (element("chosen") && data.memories[row].largest !== null) choose(row, false);
    });
  }

  // -- sorting and filtering --------------------------------------------------------------------

  const collator = new Intl.Collator("en", { numeric: true });
  const inOrder = {
    key: (one, other) => collator.compare(one.key, other.key),
    ...Object.fromEntries(["total", "likelier", "less_likely"].map((name) => [
      name, (one, other) => (one[name] ?? -1) - (other[name] ?? -1),
    ])),
    largest: (one, other) => one.highest - other.highest || one.largest - other.largest,
  };

  function sortBy(name, descending) {
    const compare = inOrder[name], sign = descending ? -1 : 1;
    const sorted = [...rows].sort((one, other) => {
      const [a, b] = [data.memories[rowOf(one)], data.memories[rowOf(other)]];
      // What was not scored comes last, whichever the order.
      const unscored = (a.largest === null) - (b.largest === null);
      return unscored || sign * compare(a, b) || rowOf(one) - rowOf(other);
    });
    document.querySelector("#ranking tbody").append(...sorted);
  }

  function filter() {
    const wanted = element("find").value.trim().toLowerCase();
    const effect = element("effect").value, onlyClear = element("clear").checked;
    let shown = 0;
    for (const tr of rows) {
      const memory = data.memories[rowOf(tr)];
      const fits = {
        "": true, likelier: memory.likelier > 0, less: memory.less_likely > 0,
        none: memory.effect === "none", estimated: memory.estimate !== null,
        unscored: memory.largest === null,
      }[effect];
      const isClear = memory.likelier + memory.less_likely > 0;
      const found = !wanted || `${memory.key}\n${memory.text}`.toLowerCase().includes(wanted);
      tr.hidden = !(fits && found && (isClear || !onlyClear));
      shown += !tr.hidden;
    }
    element("shown").textContent = shown === rows.length
      ? `${rows.length} memories` : `${shown} of ${rows.length} memories`;
  }

  if (rows.length) {
    mindscoreSorting(sortBy);
    element("filters").addEventListener("input", filter);
    element("filters").addEventListener("submit", (event) => event.preventDefault());
    filter();
    if (element("chosen")) choose(0, false);
  }

  // Within its own box: the page stays where it is.
  function showTurn(column) {
    const box = element("turns");
    for (const turn of box.querySelectorAll("[aria-current]")) turn.removeAttribute("aria-current");
    const turn = box.querySelector(`[data-column="${column}"]`);
    if (!turn) return;
    turn.setAttribute("aria-current", "true");
    const below = turn.getBoundingClientRect().top - box.getBoundingClientRect().top;
    box.scrollTop += below - 24;
  }

  // -- the matrices -----------------------------------------------------------------------------

  for (const [id, signed, noise, spread, words, more] of [
    ["matrix", data.signed, data.noise, data.spread, spoken, {
      estimates: data.estimates, estimates_error: data.estimates_error, place: data.place,
    }],
    ["hold", data.hold, data.hold_noise, data.hold_spread, null, {}],
  ]) {
    const place = element(id);
    if (!place) continue;
    const { memories, responses, unmeasured } = data;
    const its = { memories, responses, signed, noise, spread, unmeasured, ...more };
    const { first } = mindscoreMatrix(place, its, words);
    if (id === "matrix" && first) showTurn(first.column);
    place.addEventListener("mindscore:cell", ({ detail }) => {
      showTurn(detail.column);
      if (memories[detail.row].largest !== null) choose(detail.row, false);
    });
  }

  // -- paper ------------------------------------------------------------------------------------

  matchMedia("print").addEventListener("change", ({ matches }) => {
    if (!matches) return;
    showAll();
    for (const each of document.querySelectorAll("details")) each.open = true;
  });
})();
