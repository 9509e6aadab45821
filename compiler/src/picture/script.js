"use strict";
// Moving, zooming, searching and the details of a node. The drawing itself needs none of this.
(() => {
  document.documentElement.classList.add("scripted");
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const details = byId("details");
  const hint = [...details.children];
  const views = Object.entries(data).map(([name, view]) => {
    const svg = byId(name);
    const at = (kind, list) => list.map((_, i) => byId(`${name}-${kind}${i}`));
    view.nodes.forEach((n, i) => Object.assign(n, { i, operands: [], users: [] }));
    view.edges = view.edges.map(([from, to, result, bytes], i) => ({ i, from, to, result, bytes }));
    for (const e of view.edges) {
      view.nodes[e.to].operands.push(e);
      view.nodes[e.from].users.push(e);
    }
    for (const n of view.nodes) n.words = `${n.op} ${n.name} ${n.scope} ${n.kind}`.toLowerCase();
    return { ...view, name, svg, boxes: at("n", view.nodes), paths: at("e", view.edges), box: null, chosen: null };
  });
  let view = views[0];
  let hits = [];
  let hit = -1;

  // What is seen: a rectangle of the drawing, of the window's proportions.
  const everything = () => view.scopes.everything;
  const window_ = () => {
    const { width, height } = view.svg.getBoundingClientRect();
    return { width: Math.max(width, 1), height: Math.max(height, 1) };
  };
  const see = (x, y, width) => {
    const size = window_();
    const [, , all, tall] = everything();
    const most = 1.3 * Math.max(all, (tall * size.width) / size.height, size.width);
    const w = Math.min(Math.max(width, size.width / 6), most);
    view.box = { x, y, w, h: (w * size.height) / size.width };
    view.svg.setAttribute("viewBox", [x, y, w, view.box.h].map((v) => v.toFixed(1)).join(" "));
    view.svg.classList.toggle("small", size.width / w < 0.3);
  };
  const centre = (x, y, width) => {
    const size = window_();
    see(x - width / 2, y - (width * size.height) / size.width / 2, width);
  };
  const zoom = (factor, px = 0.5, py = 0.5) => {
    const { x, y, w, h } = view.box;
    const [ax, ay] = [x + w * px, y + h * py];
    see(x, y, w * factor);
    see(ax - view.box.w * px, ay - view.box.h * py, view.box.w);
  };
  const fit = ([x, y, w, h]) => {
    const size = window_();
    const width = Math.max(w, (h * size.width) / size.height) * 1.06;
    centre(x + w / 2, y + h / 2, Math.max(width, size.width / 2));
  };
  const start = () => {
    const size = window_();
    const [, , w, h] = everything();
    if (Math.min(size.width / w, size.height / h) > 0.5) return fit(everything());
    const first = view.nodes.find((n) => n.kind === "library call" || n.kind === "operation") ?? view.nodes[0];
    if (first) see(first.at[0] - size.width / 2, first.at[1] - size.height / 3, size.width);
  };

  // Details
  const element = (tag, text, ...children) => {
    const made = document.createElement(tag);
    if (text) made.textContent = text;
    made.append(...children);
    return made;
  };
  const list = (title, edges, end) => {
    if (edges.length === 0) return [];
    const entry = (e) => {
      const other = view.nodes[e[end]];
      const from = view.nodes[e.from];
      const part = from.results.length > 1 ? `#${e.result}` : "";
      const name = other.kind === "input" || other.kind === "output" ? other.name : `${other.op} ${other.name}`;
      const button = element("button", name + (end === "from" ? part : ""), element("small", e.bytes));
      button.type = "button";
      button.addEventListener("click", () => { choose(other.i); show(other.i); });
      return element("li", "", button);
    };
    return [element("h3", `${title} (${edges.length})`), element("ul", "", ...edges.map(entry))];
  };
  const choose = (i) => {
    if (view.chosen !== null) {
      view.boxes[view.chosen].classList.remove("chosen");
      for (const p of view.svg.querySelectorAll("path.reads, path.read")) p.classList.remove("reads", "read");
    }
    view.chosen = i;
    if (i === null) return details.replaceChildren(...hint);
    const n = view.nodes[i];
    view.boxes[i].classList.add("chosen");
    for (const e of n.operands) view.paths[e.i].classList.add("reads");
    for (const e of n.users) view.paths[e.i].classList.add("read");
    const facts = element("dl");
    const fact = (name, value) => { if (value) facts.append(element("dt", name), element("dd", value)); };
    fact("op", n.op);
    fact("kind", n.kind);
    fact("scope", n.scope);
    n.results.forEach(([type, bytes], k) => {
      const which = n.results.length > 1 ? ` ${k}` : "";
      fact(`shape${which}`, type);
      fact(`bytes${which}`, bytes);
    });
    if (n.kernel !== null) {
      const k = view.kernels[n.kernel];
      fact("kernel", `${k.name} ${k.scope}, ${k.nodes[1]} operations and constants`);
    }
    details.replaceChildren(
      element("h2", n.name), facts,
      ...list("operands", n.operands, "from"), ...list("users", n.users, "to"),
      ...(n.text ? [element("pre", n.text)] : []),
    );
    details.scrollTop = 0;
  };
  const show = (i) => centre(...view.nodes[i].at, Math.min(view.box.w, window_().width * 1.2));

  // Search: every word must occur; %12 is that id and no longer one, or all of that kernel.
  const search = byId("search");
  const count = byId("count");
  const named = (n, id) => n.name === id || (n.kernel !== null && view.kernels[n.kernel].name === id);
  const matches = (words) => {
    const has = (n, w) => (/^%\d+$/.test(w) ? named(n, w) : n.words.includes(w));
    return view.nodes.filter((n) => words.every((w) => has(n, w)));
  };
  const find = () => {
    for (const v of views) {
      v.svg.classList.remove("searching");
      for (const box of v.svg.querySelectorAll(".hit")) box.classList.remove("hit");
    }
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    hits = words.length === 0 ? [] : matches(words).map((n) => n.i);
    hit = -1;
    for (const i of hits) view.boxes[i].classList.add("hit");
    view.svg.classList.toggle("searching", hits.length > 0);
    count.textContent = words.length === 0 ? "" : `${hits.length} ${hits.length === 1 ? "hit" : "hits"}`;
  };
  const step = (by) => {
    if (hits.length === 0) return;
    hit = hit < 0 && by < 0 ? hits.length - 1 : (hit + by + hits.length) % hits.length;
    count.textContent = `${hit + 1} of ${hits.length}`;
    choose(hits[hit]);
    show(hits[hit]);
  };
  search.addEventListener("input", () => { find(); step(1); });
  search.form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { event.preventDefault(); step(event.shiftKey ? -1 : 1); }
    if (event.key === "Escape") { search.value = ""; find(); }
  });
  byId("next").addEventListener("click", () => step(1));
  byId("previous").addEventListener("click", () => step(-1));

  // Before and after. A chosen node stays chosen where the other graph has it.
  const scopes = byId("scopes");
  const turn = (name) => {
    const kept = view.chosen === null ? null : view.nodes[view.chosen].name;
    view = views.find((v) => v.name === name);
    const order = new Intl.Collator("en", { numeric: true }).compare;
    const names = Object.keys(view.scopes).filter((s) => s !== "everything").sort(order);
    scopes.replaceChildren(...["Go to…", "everything", ...names].map((s) => new Option(s, s)));
    if (view.box === null) start(); else see(view.box.x, view.box.y, view.box.w);
    find();
    if (kept === null) return choose(null);
    const same = view.nodes.find((n) => named(n, kept)) ?? view.nodes.find((n) => n.name === kept.split("/")[0]);
    choose(same ? same.i : null);
    if (same) show(same.i);
  };
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", () => turn(input.value));
  }
  scopes.addEventListener("change", () => {
    const box = view.scopes[scopes.value];
    if (box) fit(box);
    scopes.selectedIndex = 0;
  });
  byId("in").addEventListener("click", () => zoom(0.7));
  byId("out").addEventListener("click", () => zoom(1 / 0.7));
  byId("fit").addEventListener("click", () => fit(everything()));

  // Pointers: one moves, two zoom. A drag is not a click.
  const place = (event) => {
    const r = view.svg.getBoundingClientRect();
    return [(event.clientX - r.left) / r.width, (event.clientY - r.top) / r.height];
  };
  const pointers = new Map();
  let moved = false;
  for (const { svg, boxes } of views) {
    const index = new Map(boxes.map((b, i) => [b, i]));
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 30 : 1;
      zoom(Math.exp(Math.max(-200, Math.min(200, event.deltaY * lines)) / 400), ...place(event));
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => {
      if (pointers.size === 0) moved = false;
      pointers.set(event.pointerId, place(event));
    });
    svg.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      const now = place(event);
      const size = window_();
      if (!moved && Math.hypot((now[0] - before[0]) * size.width, (now[1] - before[1]) * size.height) < 4) return;
      if (!moved) {
        moved = true;
        for (const id of pointers.keys()) svg.setPointerCapture(id);
        svg.classList.add("dragged");
      }
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other) {
        const far = (p) => Math.hypot((p[0] - other[0]) * size.width, (p[1] - other[1]) * size.height);
        zoom(Math.max(far(before), 1) / Math.max(far(now), 1), ...other);
      } else {
        const { x, y, w, h } = view.box;
        see(x - (now[0] - before[0]) * w, y - (now[1] - before[1]) * h, w);
      }
      pointers.set(event.pointerId, now);
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) {
      svg.addEventListener(end, (event) => {
        pointers.delete(event.pointerId);
        svg.classList.remove("dragged");
      });
    }
    svg.addEventListener("click", (event) => {
      if (moved) { moved = false; return; }
      const box = event.target.closest(".node");
      choose(box ? index.get(box) : null);
    });
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && event.target.type !== "radio") return;
    if (event.key === "/") { event.preventDefault(); search.focus(); return; }
    if (event.key === "Escape") { choose(null); return; }
    if (event.target.closest?.("svg") === null) return;
    const { x, y, w, h } = view.box;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (moves) see(x + moves[0] * w * 0.12, y + moves[1] * h * 0.12, w);
    else if (event.key === "+" || event.key === "=") zoom(0.7);
    else if (event.key === "-") zoom(1 / 0.7);
    else if (event.key === "0") fit(everything());
    else return;
    event.preventDefault();
  });
  addEventListener("resize", () => see(view.box.x, view.box.y, view.box.w));
  turn(document.querySelector("input[name=view]:checked").value);
})();
