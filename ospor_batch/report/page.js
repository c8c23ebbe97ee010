// Sort a table by a click on a heading, filter its rows by words; without this script the tables stand as they are.
"use strict";
for (const box of document.querySelectorAll(".table")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const value = (row, at) => {
    const cell = row.cells[at];
    return "sort" in cell.dataset ? Number(cell.dataset.sort) : cell.textContent.trim();
  };
  const compare = (a, b, way) => {
    if (typeof a === "number" && typeof b === "number") return way * (a - b);
    if (typeof a === typeof b) return way * a.localeCompare(b, "en", { numeric: true });
    return typeof a === "number" ? -1 : 1; // words, such as "not estimable", stand last either way
  };
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
      rows.sort((a, b) => compare(value(a, at), value(b, at), way));
      body.append(...rows);
    });
  });
  if (box.dataset.filter) {
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    const told = document.createElement("output");
    label.append("Filter rows", input, told);
    box.prepend(label);
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      told.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
    });
  }
}
// a closed section must not be missing on paper
addEventListener("beforeprint", () => {
  for (const closed of document.querySelectorAll("section > details")) closed.open = true;
});
