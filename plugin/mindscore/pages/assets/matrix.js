"use strict";

// What is smaller cannot be told from chance: it is neither coloured nor called an effect. The same
// rule as noise_limit in Python.
function mindscoreLimit(data, row, column) {
  const noise = data.noise?.[row][column] ?? null, spread = data.spread?.[column] ?? 0;
  const assumed = noise === null && !spread;
  return { limit: assumed ? data.unmeasured ?? 0 : Math.max(noise ?? 0, spread), assumed };
}

// The heat map: what each memory (row) did to each response (column), in nats.
//
// data: {memories: [{key, text}], responses: [{entry_idx, node_id, text}],
//        signed: [[number | null]], noise: [[number | null]] | null,
//        spread: [number]: for each response, what nearly any memory does to it,
//        unmeasured: nats that count as noise where neither is known; 0 if not given,
//        estimates: [[number | null]], where given: what a screen has estimated of cells that were
//        not measured; estimates_error: the nats that these may be wrong by, or null,
//        estimated: [[boolean]], where given: the cells of signed that are such estimates, too,
//        place: [number], where given: what an unrelated text in a memory's place does}
// words(row, column), where given: a node to show in the place of the response's text, or null.
//
// Only what is in sight is drawn. The element tells of a cell that was chosen (clicked, or Enter)
// by the event "mindscore:cell", its detail being {row, column}.
function mindscoreMatrix(element, data, words) {
  const HEAD = 132, ROW = 24, NARROWEST = 20, WIDEST = 56, WITH_NUMBER = 40, LONGEST = 3000;
  const rows = data.memories.length, columns = data.responses.length;
  const nats = new Intl.NumberFormat("en", {
    signDisplay: "exceptZero", minimumFractionDigits: 2, maximumFractionDigits: 2,
  });
  const least = Math.max(0.1, middle(data.signed.flatMap((row, at) =>
    row.flatMap((it, column) => (it === null ? [] : [mindscoreLimit(data, at, column).limit])))));
  const largest = Math.max(1, 2 * least, ...[...data.signed, ...(data.estimates ?? [])].map(
    (row) => row.reduce((most, it) => Math.max(most, Math.abs(it ?? 0)), 0)
  ));
  const guesses = Boolean(data.estimates || data.estimated);

  function middle(numbers) {
    const sorted = numbers.sort((one, other) => one - other);
    return sorted.length ? sorted[Math.floor(sorted.length / 2)] : 0;
  }

  function make(tag, className, text) {
    const made = document.createElement(tag);
    if (className) made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function set(it, attributes) {
    for (const [name, value] of Object.entries(attributes)) it.setAttribute(name, value);
  }

  function valueAt(row, column) {
    const guess = data.signed[row][column] === null ? data.estimates?.[row][column] ?? null : null;
    const signed = guess ?? data.signed[row][column];
    const guessed = guess !== null || Boolean(data.estimated?.[row][column]);
    let noise = data.noise?.[row][column] ?? null;
    let { limit, assumed } = mindscoreLimit(data, row, column);
    if (guess !== null) {
      noise = data.estimates_error ?? null;
      assumed = noise === null && !data.spread?.[column];
      limit = assumed ? data.unmeasured ?? 0 : Math.max(noise ?? 0, data.spread?.[column] ?? 0);
    }
    const within = signed !== null && signed !== 0 && Math.abs(signed) <= limit;
    const place = data.place?.[column] ?? null;
    return { signed, noise, within, limit, assumed, guessed, place };
  }

  function inWords({ signed, within, limit, assumed, guessed }) {
    if (signed === null) return "not measured";
    if (guessed) {
      const error = within ? `, within ±${limit.toFixed(2)} nats, which says nothing` : "";
      return `≈ ${nats.format(signed)} nats: estimated, not measured${error}`;
    }
    if (within) {
      const which = assumed ? ", which is assumed: noise is not measured" : "";
      return `within noise: ${nats.format(signed)} of ±${limit.toFixed(2)} nats${which}`;
    }
    if (signed === 0) return "no difference";
    const likelier = signed > 0 ? "likelier" : "less likely";
    return `${nats.format(signed)} nats: ${likelier} with the memory`;
  }

  function short(text) {
    return text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text;
  }

  // -- what stands there ------------------------------------------------------------------------

  const legend = make("p", "matrix-legend");
  const ramp = make("span", "matrix-scale"), ticks = make("span", "matrix-ticks tiny");
  const most = largest.toFixed(1), half = (largest / 2).toFixed(1);
  const values = [`−${most}`, `−${half}`, "0", `+${half}`, `+${most}`];
  ticks.append(...values.map((it) => make("span", "", it)));
  const strip = make("span", "matrix-strip");
  strip.append(make("span", "matrix-ramp"), ticks);
  ramp.append("harmed: less likely", strip, "helped: likelier, in nats");
  legend.append(ramp);
  const kinds = { noise: "within noise", none: "no difference", missing: "not measured" };
  if (guesses) kinds.guessed = "estimated, not measured";
  for (const [kind, words] of Object.entries(kinds)) {
    const each = make("span");
    each.append(make("span", `matrix-swatch ${kind}`), words);
    legend.append(each);
  }

  const layout = make("div", "matrix-layout"), frame = make("div", "matrix-frame");
  const space = make("div"), canvas = make("canvas"), spoken = make("div", "visually-hidden");
  const details = make("div", "matrix-details");
  frame.tabIndex = details.tabIndex = 0;
  set(frame, {
    role: "grid", "aria-rowcount": rows, "aria-colcount": columns,
    "aria-label": "What each memory did to each response, in nats. Arrow keys move.",
  });
  set(canvas, { "aria-hidden": "true" });
  set(details, { role: "region", "aria-label": "The cell under the pointer or in focus" });
  space.append(canvas);
  frame.append(space, spoken);
  layout.append(frame, details);
  element.replaceChildren(legend, layout);

  const pen = canvas.getContext("2d");
  const onPaper = matchMedia("print"), inTheDark = matchMedia("(prefers-color-scheme: dark)");
  const first = firstClear();
  let focused = first, pointed = null, shownAs = "";
  let label = 0, cell = NARROWEST, height = ROW, colours = null, waiting = false;

  // The first cell beyond noise, in the order of reading; where there is none, the largest.
  function firstClear() {
    let largestAt = { row: 0, column: 0 }, size = 0;
    for (let row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1) {
        const { signed, within, guessed } = valueAt(row, column);
        if (guessed) continue;
        if (signed && !within) return { row, column };
        if (Math.abs(signed ?? 0) > size) {
          size = Math.abs(signed);
          largestAt = { row, column };
        }
      }
    }
    return largestAt;
  }

  // -- colours ----------------------------------------------------------------------------------

  function readColours() {
    const style = getComputedStyle(element);
    const of = (name) => style.getPropertyValue(name).trim();
    const parts = (name) => {
      const hex = of(name).slice(1);
      return [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));
    };
    const ends = [parts("--scale-low"), parts("--scale-middle"), parts("--scale-high")];
    const ramp = [];
    for (let step = -64; step <= 64; step += 1) {
      const end = step < 0 ? ends[0] : ends[2], share = Math.abs(step) / 64;
      const mixed = ends[1].map((it, at) => Math.round(it + (end[at] - it) * share));
      const light = 0.299 * mixed[0] + 0.587 * mixed[1] + 0.114 * mixed[2];
      ramp.push({ fill: `rgb(${mixed.join(" ")})`, ink: light > 140 ? "#000" : "#fff" });
    }
    const tile = document.createElement("canvas");
    tile.width = tile.height = 6;
    const hatch = tile.getContext("2d");
    hatch.strokeStyle = of("--scale-hatch");
    hatch.lineWidth = 1;
    for (const at of [-6, 0, 6]) {
      hatch.moveTo(at, 6);
      hatch.lineTo(at + 6, 0);
    }
    hatch.stroke();
    colours = {
      ramp, surface: of("--surface"), sunken: of("--sunken"), ink: of("--ink"),
      muted: of("--muted"), noise: of("--scale-noise"), focus: of("--focus"),
      hatch: pen.createPattern(tile, "repeat"), sans: of("--sans"),
    };
  }

  function shade(signed) {
    const share = (Math.abs(signed) - least) / (largest - least);
    const seen = 0.2 + 0.8 * Math.max(0, Math.min(1, share));
    return colours.ramp[64 + Math.round(64 * seen * Math.sign(signed))];
  }

  // -- drawing ----------------------------------------------------------------------------------

  function arrange() {
    readColours();
    const wide = onPaper.matches ? 960 : frame.clientWidth;
    pen.font = `600 12px ${colours.sans}`;
    const longest = data.memories.reduce(
      (widest, it) => Math.max(widest, pen.measureText(it.key.slice(0, 40)).width), 40
    );
    label = Math.ceil(Math.min(longest + 20, wide * 0.38, 240));
    const fitting = (wide - label) / Math.max(1, columns);
    cell = Math.min(WIDEST, onPaper.matches ? fitting : Math.max(NARROWEST, Math.floor(fitting)));
    height = onPaper.matches ? 14 : ROW;
    const whole = { width: label + cell * columns, height: HEAD + height * rows };
    space.style.width = `${whole.width}px`;
    space.style.height = `${whole.height}px`;
    const tallest = Math.max(240, Math.round(window.innerHeight * 0.8));
    // Its borders and, where it has one, its scroll bar.
    const edges = frame.offsetHeight - frame.clientHeight;
    frame.style.height = onPaper.matches ? "auto" : `${Math.min(whole.height + edges, tallest)}px`;
    const size = onPaper.matches
      ? whole
      : { width: frame.clientWidth, height: Math.min(frame.clientHeight, whole.height) };
    const dots = Math.min(2, window.devicePixelRatio || 1);
    canvas.width = Math.round(size.width * dots);
    canvas.height = Math.round(size.height * dots);
    canvas.style.width = `${size.width}px`;
    canvas.style.height = `${size.height}px`;
    pen.setTransform(dots, 0, 0, dots, 0, 0);
    draw();
  }

  // A key loses its middle: what tells long ones apart is often at their end.
  function fit(text, room, isKey) {
    if (pen.measureText(text).width <= room) return text;
    const cut = (kept) => (isKey
      ? `${text.slice(0, Math.ceil(kept / 2))}…${text.slice(text.length - Math.floor(kept / 2))}`
      : `${text.slice(0, kept).trimEnd()}…`);
    let kept = Math.min(text.length - 1, 80);
    while (kept > 2 && pen.measureText(cut(kept)).width > room) kept -= 1;
    return cut(kept);
  }

  function only(x, y, width, high) {
    pen.save();
    pen.beginPath();
    pen.rect(x, y, width, high);
    pen.clip();
  }

  function draw() {
    waiting = false;
    const left = onPaper.matches ? 0 : frame.scrollLeft;
    const top = onPaper.matches ? 0 : frame.scrollTop;
    const width = parseFloat(canvas.style.width), tall = parseFloat(canvas.style.height);
    const first = { row: Math.floor(top / height), column: Math.floor(left / cell) };
    const last = {
      row: Math.min(rows - 1, Math.floor((top + tall - HEAD) / height)),
      column: Math.min(columns - 1, Math.floor((left + width - label) / cell)),
    };
    const x = (column) => label + column * cell - left, y = (row) => HEAD + row * height - top;
    const shown = pointed || focused;
    pen.fillStyle = colours.surface;
    pen.fillRect(0, 0, width, tall);

    only(label, HEAD, width - label, tall - HEAD);
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = `11px ${colours.sans}`;
    for (let row = first.row; row <= last.row; row += 1) {
      for (let column = first.column; column <= last.column; column += 1) {
        const value = valueAt(row, column);
        const colour = value.signed === null || value.within ? null : shade(value.signed);
        const gap = cell > 6 ? 1 : 0;
        pen.fillStyle = colour ? colour.fill : value.within ? colours.noise : colours.hatch;
        pen.fillRect(x(column), y(row), cell - gap, height - gap);
        const hasNumber = cell >= WITH_NUMBER && colour && Math.abs(value.signed) >= 0.05;
        if (hasNumber || value.guessed) {
          pen.fillStyle = colour ? colour.ink : colours.muted;
          const text = hasNumber ? value.signed.toFixed(1) : "";
          const mark = value.guessed ? "≈" : "";
          pen.fillText(mark + text, x(column) + cell / 2, y(row) + height / 2);
        }
      }
    }
    if (rows && columns && !onPaper.matches) {
      pen.lineWidth = 2;
      pen.strokeStyle = colours.focus;
      pen.strokeRect(x(shown.column), y(shown.row), cell - 1, height - 1);
    }
    pen.restore();

    pen.fillStyle = colours.sunken;
    pen.fillRect(0, 0, width, HEAD);
    pen.fillRect(0, 0, label, tall);
    only(0, HEAD, label, tall - HEAD);
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    for (let row = first.row; row <= last.row; row += 1) {
      const at = row === shown.row && !onPaper.matches;
      pen.font = `${at ? "600 " : ""}12px ${colours.sans}`;
      pen.fillStyle = at ? colours.ink : colours.muted;
      pen.fillText(fit(data.memories[row].key, label - 14, true), 8, y(row) + height / 2);
    }
    pen.restore();
    only(label, 0, width - label, HEAD);
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    // Upright, one in each column: none collides with the next.
    for (let column = first.column; column <= last.column; column += 1) {
      const at = column === shown.column && !onPaper.matches;
      const response = data.responses[column];
      pen.fillStyle = at ? colours.ink : colours.muted;
      pen.font = `${at ? "600 " : ""}11px ${colours.sans}`;
      pen.save();
      pen.translate(x(column) + cell / 2, HEAD - 6);
      pen.rotate(-Math.PI / 2);
      const words = response.text.slice(0, 160).replace(/\s+/g, " ");
      pen.fillText(fit(`#${response.entry_idx} ${words}`, HEAD - 14, false), 0, 0);
      pen.restore();
    }
    pen.restore();
    tell(shown);
  }

  function drawSoon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(draw);
  }

  // -- telling ----------------------------------------------------------------------------------

  function tell({ row, column }) {
    const now = `${row} ${column}`;
    if (now === shownAs || !rows || !columns) return;
    shownAs = now;
    const memory = data.memories[row], response = data.responses[column];
    const value = valueAt(row, column);
    const told = value.within || !value.signed || value.guessed ? " none" : value.signed > 0 ? " more" : " less";
    const said = make("p", "text");
    said.append((words && words(row, column)) || short(response.text));
    const key = make("p");
    key.append(make("span", "key", memory.key));
    const parts = [make("p", `matrix-value${told}`, inWords(value))];
    if (value.noise !== null && (!value.within || value.guessed)) {
      const what = value.guessed ? "95 % of the estimates are within" : "noise";
      parts.push(make("p", "muted", `${what} ±${value.noise.toFixed(2)} nats`));
    }
    if (value.place !== null) {
      const does = `an unrelated text in a memory's place: up to ${value.place.toFixed(2)} nats`;
      parts.push(make("p", "muted", does));
    }
    details.replaceChildren(
      ...parts, make("h4", "", "Memory"), key, make("p", "text", short(memory.text)),
      make("h4", "", `Response #${response.entry_idx}`), said
    );
  }

  function announce() {
    const { row, column } = focused;
    const line = make("div"), head = make("div", "", data.memories[row].key), here = make("div");
    const id = `${element.id}-cell-${row}-${column}`;
    set(line, { role: "row", "aria-rowindex": row + 1 });
    set(head, { role: "rowheader" });
    set(here, { role: "gridcell", "aria-colindex": column + 1, id });
    const response = data.responses[column];
    here.textContent = `${data.memories[row].key}, response #${response.entry_idx}: `
      + `${inWords(valueAt(row, column))}. ${response.text.slice(0, 200)}`;
    line.append(head, here);
    spoken.replaceChildren(line);
    set(frame, { "aria-activedescendant": id });
  }

  function bringIntoSight() {
    const { row, column } = focused;
    const x = column * cell, y = row * height;
    const wide = frame.clientWidth - label, tall = frame.clientHeight - HEAD;
    if (x < frame.scrollLeft) frame.scrollLeft = x;
    if (x + cell > frame.scrollLeft + wide) frame.scrollLeft = x + cell - wide;
    if (y < frame.scrollTop) frame.scrollTop = y;
    if (y + height > frame.scrollTop + tall) frame.scrollTop = y + height - tall;
  }

  function focusOn(row, column) {
    const clamp = (at, count) => Math.max(0, Math.min(count - 1, at));
    focused = { row: clamp(row, rows), column: clamp(column, columns) };
    pointed = null;
    bringIntoSight();
    announce();
    draw();
  }

  function choose() {
    element.dispatchEvent(new CustomEvent("mindscore:cell", { detail: { ...focused } }));
  }

  function cellUnder(event) {
    const box = canvas.getBoundingClientRect();
    const x = event.clientX - box.left - label, y = event.clientY - box.top - HEAD;
    const named = x < 0 ? data.memories[Math.floor((y + frame.scrollTop) / height)] : null;
    canvas.title = y >= 0 && named ? named.key : "";
    if (x < 0 || y < 0) return null;
    const row = Math.floor((y + frame.scrollTop) / height);
    const column = Math.floor((x + frame.scrollLeft) / cell);
    return row < rows && column < columns ? { row, column } : null;
  }

  // -- what people do ---------------------------------------------------------------------------

  if (!rows || !columns) {
    element.replaceChildren(make("p", "muted", "There is nothing to compare."));
    return { focusOn() {}, redraw() {} };
  }

  frame.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor((frame.clientHeight - HEAD) / height) - 1);
    const { row, column } = focused;
    const everywhere = event.ctrlKey || event.metaKey;
    // The rest is the browser's: to go back, say.
    if (event.altKey || (everywhere && event.key !== "Home" && event.key !== "End")) return;
    const to = {
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      PageUp: [row - page, column], PageDown: [row + page, column],
      Home: [everywhere ? 0 : row, 0],
      End: [everywhere ? rows - 1 : row, columns - 1],
    }[event.key];
    if (to) focusOn(...to);
    else if (event.key === "Enter" || event.key === " ") choose();
    else return;
    event.preventDefault();
  });
  frame.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    const under = cellUnder(event);
    if (under?.row === pointed?.row && under?.column === pointed?.column) return;
    pointed = under;
    drawSoon();
  });
  frame.addEventListener("pointerleave", () => {
    pointed = null;
    drawSoon();
  });
  frame.addEventListener("click", (event) => {
    const under = cellUnder(event);
    if (!under) return;
    focusOn(under.row, under.column);
    choose();
  });
  frame.addEventListener("scroll", drawSoon, { passive: true });
  new ResizeObserver(arrange).observe(layout);
  onPaper.addEventListener("change", arrange);
  inTheDark.addEventListener("change", arrange);
  arrange();
  bringIntoSight();
  announce();
  draw();
  return {
    first,
    focusOn,
    redraw() {
      shownAs = "";
      draw();
    },
  };
}
