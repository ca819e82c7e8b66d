"use strict";

// The buttons in a table's head. Each press calls sort(name, descending), and the head says so.
function mindscoreSorting(sort) {
  const buttons = [...document.querySelectorAll(".sort")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const now = button.closest("th").getAttribute("aria-sort");
      const first = button.dataset.by === "key" ? "ascending" : "descending";
      const next = now ? (now === "ascending" ? "descending" : "ascending") : first;
      for (const each of buttons) each.closest("th").removeAttribute("aria-sort");
      button.closest("th").setAttribute("aria-sort", next);
      sort(button.dataset.by, next === "descending");
    });
  }
}
