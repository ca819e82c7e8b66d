"use strict";

// The ranking of an archive's memories: sorted, searched, and shown a page at a time. All rows are
// in the file; those that are not shown are kept out of the document, so that it stays quick.
(() => {
  const MOST = 100;
  const element = (id) => document.getElementById(id);
  const body = document.querySelector("#archive tbody");
  if (!body) return;
  const rows = [...body.rows, ...element("other-rows").content.querySelectorAll("tr")];
  const collator = new Intl.Collator("en", { numeric: true });
  const texts = new Map();
  let order = rows, found = rows, page = 0, verdict = "";

  function textOf(tr) {
    if (!texts.has(tr)) texts.set(tr, tr.textContent.toLowerCase());
    return texts.get(tr);
  }

  function show() {
    const pages = Math.max(1, Math.ceil(found.length / MOST));
    page = Math.max(0, Math.min(page, pages - 1));
    const first = page * MOST, shown = found.slice(first, first + MOST);
    body.replaceChildren(...shown);
    const all = rows.length === 1 ? "1 memory" : `${rows.length.toLocaleString("en")} memories`;
    const of = found.length === rows.length ? all : `${found.length.toLocaleString("en")} of ${all}`;
    element("shown").textContent = pages > 1 && shown.length
      ? `${of}: ${(first + 1).toLocaleString("en")} to ${(first + shown.length).toLocaleString("en")}`
      : of;
    element("none").hidden = found.length > 0;
    element("pages").hidden = pages === 1;
    element("previous").disabled = page === 0;
    element("next").disabled = page === pages - 1;
    element("page").textContent = `page ${page + 1} of ${pages}`;
  }

  function filter() {
    const wanted = element("find").value.trim().toLowerCase();
    found = order.filter((tr) => (!verdict || tr.dataset.verdict === verdict)
      && (!wanted || textOf(tr).includes(wanted)));
    page = 0;
    show();
  }

  function sortBy(name, descending) {
    const sign = descending ? -1 : 1, values = new Map();
    for (const tr of rows) {
      const value = tr.dataset[name];
      values.set(tr, name === "key" ? value : value === "" ? null : Number(value));
    }
    order = [...rows].sort((one, other) => {
      const [a, b] = [values.get(one), values.get(other)];
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (name === "key" ? collator.compare(a, b) : a - b);
    });
    filter();
  }

  function choose(chosen) {
    verdict = chosen;
    for (const it of document.querySelectorAll("[data-group]")) {
      it.setAttribute("aria-pressed", String(it.dataset.group === verdict));
    }
    filter();
  }

  function turn(step) {
    page += step;
    show();
    element("memories").scrollTop = 0;
    element("memories").scrollIntoView({ block: "start" });
  }

  // A row may be on another page, or not be among those found.
  function goTo(id) {
    const tr = rows.find((it) => it.id === id);
    if (!tr) return;
    if (!found.includes(tr)) {
      element("find").value = "";
      choose("");
    }
    page = Math.floor(found.indexOf(tr) / MOST);
    show();
    tr.focus({ preventScroll: true });
    tr.scrollIntoView({ block: "center" });
  }

  mindscoreSorting(sortBy);
  for (const it of document.querySelectorAll("[data-group]")) {
    const its = it.dataset.group;
    it.addEventListener("click", () => choose(verdict === its ? "" : its));
  }
  element("filters").addEventListener("input", filter);
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("previous").addEventListener("click", () => turn(-1));
  element("next").addEventListener("click", () => turn(1));
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[href^="#m"]') : null;
    if (!link) return;
    event.preventDefault();
    goTo(link.getAttribute("href").slice(1));
  });
  show();
  if (location.hash.startsWith("#m")) goTo(location.hash.slice(1));
})();
