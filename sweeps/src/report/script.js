"use strict";
// Values of marks by pointer and by arrow keys, sorting, SVG and PNG download. The page can be read without any of this.
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
  tip.setAttribute("role", "status");
  let near = null;
  const hide = () => {
    tip.hidden = true;
    near?.classList.remove("near");
    near = null;
  };
  const show = (mark, x, y) => {
    hide();
    if (!mark) return;
    near = mark;
    tip.hidden = false;
    tip.textContent = mark.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - width - 4))}px`;
    tip.style.top = `${y - height - 12 < 4 ? y + 18 : y - height - 12}px`;
  };
  const point = (event) => show(event.target.closest?.("[data-tip]"), event.clientX, event.clientY);
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("scroll", hide, { passive: true });

  // A plot is one stop of the Tab key; arrow keys walk over its marks from left to right, but for single resamples.
  const place = (mark) => {
    const box = mark.getBoundingClientRect();
    return [box.left + box.width / 2, box.top + box.height / 2];
  };
  for (const svg of document.querySelectorAll("svg.plot")) {
    svg.tabIndex = 0;
    let at = -1;
    svg.addEventListener("blur", () => { at = -1; hide(); });
    svg.addEventListener("keydown", (event) => {
      const marks = [...svg.querySelectorAll("[data-tip]:not(.draw)")]
        .filter((mark) => mark.getClientRects().length > 0)
        .map((mark) => [place(mark), mark])
        .sort(([[x, y]], [[u, v]]) => x - u || y - v);
      const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") hide();
      if (!(event.key in steps) || marks.length === 0) return;
      event.preventDefault();
      at = Math.max(0, Math.min(marks.length - 1, at + steps[event.key]));
      const [[x, y], mark] = marks[at];
      show(mark, x, y);
      mark.classList.add("near");
    });
  }

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

  // A downloaded drawing carries the colours and text sizes that the page's style sheet gives it now.
  const carried = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "opacity", "display",
    "font-family", "font-size", "font-variant-numeric"];
  const standalone = (svg) => {
    const copy = svg.cloneNode(true);
    const before = [svg, ...svg.querySelectorAll("*")];
    [copy, ...copy.querySelectorAll("*")].forEach((element, i) => {
      const style = getComputedStyle(before[i]);
      carried.forEach((name) => element.removeAttribute(name));
      element.setAttribute("style", carried.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
      element.removeAttribute("data-tip");
    });
    const [, , width, height] = svg.getAttribute("viewBox").split(" ");
    copy.setAttribute("width", width);
    copy.setAttribute("height", height);
    copy.removeAttribute("tabindex");
    copy.style.background = getComputedStyle(root).getPropertyValue("--card");
    return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
  };
  const save = (blob, name) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  // Three pixels for each unit of the drawing: a column of paper at 500 dots an inch.
  const PIXELS = 3;
  const painted = async (svg) => {
    const image = new Image();
    const source = URL.createObjectURL(standalone(svg));
    image.src = source;
    await image.decode();
    URL.revokeObjectURL(source);
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width * PIXELS, image.height * PIXELS];
    const pen = canvas.getContext("2d");
    pen.fillStyle = getComputedStyle(root).getPropertyValue("--card");
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    return new Promise((done) => { canvas.toBlob(done, "image/png"); });
  };
  const onDownload = (kind, make) => {
    for (const button of document.querySelectorAll(`.${kind}-download[data-figure]`)) {
      button.addEventListener("click", async () => {
        const figure = document.getElementById(button.dataset.figure);
        const svg = [...figure.querySelectorAll("svg.plot")].find((s) => s.getClientRects().length > 0);
        save(await make(svg), `${figure.id}.${kind}`);
      });
    }
  };
  onDownload("svg", standalone);
  onDownload("png", painted);
})();
