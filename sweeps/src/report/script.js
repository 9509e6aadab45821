"use strict";
// Hover values, sorting and SVG download. The page can be read without any of this.
(() => {
  const root = document.documentElement;
  root.classList.add("scripted");

  // Values of marks move from the browser's slow tooltip to one that follows the pointer.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);
  for (const title of document.querySelectorAll(".mark > title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  const show = (event) => {
    const mark = event.target.closest?.("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${event.clientY - height - 12 < 4 ? event.clientY + 18 : event.clientY - height - 12}px`;
  };
  document.addEventListener("pointermove", show);
  document.addEventListener("pointerdown", show);
  document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

  // Tables: numbers by data-sort, words by text; empty cells last.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    const key = (row, i) => {
      const cell = row.cells[i];
      if (!cell.classList.contains("number")) return cell.textContent;
      return cell.dataset.sort === "" ? null : Number(cell.dataset.sort);
    };
    const sort = (head, i) => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((h) => h.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [key(row, i), row]);
      rows.sort(([a], [b]) => {
        if (a === null || b === null) return (a === null) - (b === null);
        const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows.map(([, row]) => row));
    };
    heads.forEach((head, i) => {
      head.tabIndex = 0;
      head.addEventListener("click", () => sort(head, i));
      head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(head, i); });
    });
  }

  // A downloaded SVG carries the colours and text sizes that the page's style sheet gives it now.
  const carried = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "display",
    "font-family", "font-size", "font-variant-numeric"];
  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const before = [svg, ...svg.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
      const style = getComputedStyle(before[i]);
      element.setAttribute("style", carried.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
      element.removeAttribute("data-tip");
    });
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.style.background = getComputedStyle(root).getPropertyValue("--card");
    return new XMLSerializer().serializeToString(copy);
  };
  for (const button of document.querySelectorAll(".svg-download")) {
    button.addEventListener("click", () => {
      const figure = document.getElementById(button.dataset.figure);
      const svg = [...figure.querySelectorAll("svg.plot")].find((s) => s.getClientRects().length > 0);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([standalone(svg)], { type: "image/svg+xml" }));
      link.download = `${figure.id}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
})();
