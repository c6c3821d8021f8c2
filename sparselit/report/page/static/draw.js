// The graph: what of it is visible, and a chart of it in SVG; canvas.js has the other chart, for large graphs.
const MOST_IN_SVG = 2000;
const EDGE_LEAST = 0.8, EDGE_MORE = 4.2;

/** What is drawn of one circuit under the view's filters: boxes, edges between them, tracks. */
function sceneOf(frame) {
  const folded = new Map();  // the box that stands for a node
  const boxes = new Map();
  const fold = (key, members, text) => {
    const live = members.filter((n) => !view.hidden.has("L" + n.layer));
    if (!live.length) return;
    const xs = live.map((n) => n.x), ys = live.map((n) => n.y);
    const box = { id: key, fold: key, x: (Math.min(...xs) + Math.max(...xs)) / 2, y: (Math.min(...ys) + Math.max(...ys)) / 2, w: 20 + 7 * text.length, h: 34, label: text, caption: live.length + " nodes", kind: "fold", members: live, head: null };
    for (const n of live) if (!folded.has(n)) folded.set(n, box);
    boxes.set(key, box);
  };
  for (const layer of layers) if (view.folded.has("L" + layer)) fold("L" + layer, nodes.filter((n) => n.layer === layer), "layer " + layer);
  for (const head of heads) if (view.folded.has("H" + head.key) && !view.folded.has("L" + head.layer)) fold("H" + head.key, head.members, "head " + head.head);
  const found = view.find ? reach(frame) : null;
  const shown = new Map();
  for (const edge of edges) {
    const weight = edge.weights[frame];
    if (weight === null || view.hidden.has("L" + edge.source.layer) || view.hidden.has("L" + edge.target.layer)) continue;
    if (Math.abs(weight) < view.weight * largest[frame]) continue;
    if (view.sign !== "all" && (weight > 0) !== (view.sign === "positive")) continue;
    if (view.loss && !(edge.losses[frame] >= view.loss * largestLoss[frame])) continue;
    if (found && !(found.has(edge.source) && found.has(edge.target))) continue;
    const a = folded.get(edge.source) || edge.source, b = folded.get(edge.target) || edge.target;
    if (a === b) continue;
    if (a === edge.source && b === edge.target) { shown.set(edge.id, { id: edge.id, a, b, weight, edge, members: [edge] }); continue; }
    const key = a.id + " → " + b.id, bundle = shown.get(key) || { id: key, a, b, weight: 0, edge: null, members: [] };
    bundle.weight += weight; bundle.members.push(edge); shown.set(key, bundle);
  }
  const filtered = view.weight || view.loss || view.sign !== "all" || found;
  const alive = new Set();
  for (const e of shown.values()) alive.add(e.a).add(e.b);
  for (const node of nodes) {
    if (folded.has(node) || view.hidden.has("L" + node.layer)) continue;
    const present = node.into.some((e) => e.weights[frame] !== null) || node.out.some((e) => e.weights[frame] !== null) || (node.bias && node.bias.weights[frame] !== null);
    if (present && (!filtered || alive.has(node) || (found && found.has(node) && !view.weight && !view.loss))) boxes.set(node.id, node);
  }
  const list = [...boxes.values()].filter((box) => box.kind !== "fold" || alive.has(box) || !filtered);
  const drawn = [...shown.values()].sort((p, q) => Math.abs(p.weight) - Math.abs(q.weight) || (p.id < q.id ? -1 : 1));
  return { frame, boxes: list, edges: drawn, tracks: tracksOf(list), most: largest[frame] };
}
/** Nodes on paths through what the search names. */
function reach(frame) {
  const wanted = view.find.toLowerCase();
  const start = nodes.filter((n) => (n.words + " " + n.id + " " + (kept.labels[n.id] || "")).toLowerCase().includes(wanted));
  const found = new Set();
  for (const up of [true, false]) {
    const ahead = [...start], seen = new Set(start);
    while (ahead.length) {
      const node = ahead.pop(); found.add(node);
      const next = (up ? node.out : node.into).filter((e) => e.weights[frame] !== null).map((e) => (up ? e.target : e.source));
      if (node.role === (up ? "writes" : "reads")) next.push(...through(node));
      if ("qkv".includes(node.kind) && up) next.push(...nodes.filter((n) => n.layer === node.layer && n.head === node.head && n.kind === "v"));
      if (node.kind === "v" && !up) next.push(...nodes.filter((n) => n.layer === node.layer && n.head === node.head && n.kind !== "v"));
      for (const other of next) if (!seen.has(other)) { seen.add(other); ahead.push(other); }
    }
  }
  return found;
}
function tracksOf(boxes) {
  const ends = new Map();
  for (const box of boxes) if (box.role) {
    const end = ends.get(box.channel) || ends.set(box.channel, { x: box.x, writes: -1e9, reads: 1e9 }).get(box.channel);
    if (box.role === "writes") end.writes = Math.max(end.writes, box.y); else end.reads = Math.min(end.reads, box.y);
  }
  return [...ends].filter(([, e]) => e.writes > e.reads).map(([channel, e]) => ({ channel, x: e.x, bottom: e.writes, top: e.reads }));
}
const thick = (e, most) => EDGE_LEAST + EDGE_MORE * Math.min(1, Math.abs(e.weight) / most);
/** The four points of an edge's curve, from the top of its source to the bottom of its target. */
function curve(e) {
  const x0 = e.a.x, y0 = e.a.y - e.a.h / 2, x1 = e.b.x, y1 = e.b.y + e.b.h / 2;
  if (e.a.kind === "token" && e.b.kind === "logits") { const side = graph.width + 60; return [x0, y0, side, y0 - 60, side, y1 + 60, x1, y1]; }
  const bend = Math.max(18, Math.abs(y0 - y1) * 0.45);
  return [x0, y0, x0, y0 - bend, x1, y1 + bend, x1, y1];
}
const path = (c) => `M${c[0]} ${c[1]}C${c[2]} ${c[3]} ${c[4]} ${c[5]} ${c[6]} ${c[7]}`;
const shared = (edge) => circuits.length === 2 && edge.weights.every((w) => w !== null);
const fillOf = (box) => (box.kind === "fold" ? "fold" : box.block === "input" || box.block === "output" ? "word" : box.head !== null ? "head" : box.kind === "act" ? "neuron" : "plain");
const boxText = (box) => kept.labels[box.id] ? cut(kept.labels[box.id], 22) : cut(box.head !== null && box.kind !== "fold" ? box.kind + " " + box.label.replace("ch ", "") : box.label, 18);
/** Background of the graph: bands of the layers with their names, and frames round the heads. */
function grounds() {
  const bands = layers.map((layer) => {
    const ys = graph.rows.filter((r) => r.layer === layer).map((r) => r.y);
    return { layer, y: Math.min(...ys) - 28, h: Math.max(...ys) - Math.min(...ys) + 56 };
  });
  const frames = heads.filter((head) => !view.folded.has("H" + head.key) && !view.folded.has("L" + head.layer) && !view.hidden.has("L" + head.layer)).map((head) => {
    const left = Math.min(...head.members.map((n) => n.x - n.w / 2)) - 6, right = Math.max(...head.members.map((n) => n.x + n.w / 2)) + 6;
    return { key: head.key, text: "head " + head.head, x: left, w: right - left, y: head.members[0].y - 19, h: 38 };
  });
  return { bands, frames };
}
const LEFT = 120;  // room for the names of the rows

/** A chart in SVG. `on` has hover(thing, event) and click(thing). */
class SvgChart {
  constructor(host, on) {
    this.host = host; this.on = on;
    this.root = h("svg:svg", { class: "chart", tabindex: 0, role: "application", "aria-label": "The circuit's graph. Arrow keys pin the next node, Escape lets it go." });
    this.world = h("svg:g"); this.root.append(this.world); host.append(this.root);
    this.zoom = d3.zoom().scaleExtent([0.03, 8]).on("zoom", (event) => {
      this.world.setAttribute("transform", event.transform);
      if (this.moved) this.moved(event.transform, event.sourceEvent);
    });
    d3.select(this.root).call(this.zoom).on("dblclick.zoom", null);
    const thing = (event) => this.things.get(event.target.closest && event.target.closest("[data-id]") && event.target.closest("[data-id]").getAttribute("data-id"));
    this.root.addEventListener("pointermove", (event) => on.hover(thing(event) || null, event));
    this.root.addEventListener("pointerleave", (event) => on.hover(null, event));
    this.root.addEventListener("click", (event) => { if (!event.defaultPrevented) on.click(thing(event) || null); });
  }
  render(scene) {
    this.scene = scene; this.things = new Map(); this.parts = new Map();
    const { bands, frames } = grounds();
    const back = h("svg:g"), lines = h("svg:g"), boxes = h("svg:g");
    for (const b of bands) {
      back.append(h("svg:rect", { class: "band", x: -LEFT, y: b.y, width: graph.width + LEFT + 20, height: b.h, rx: 8 }));
      const text = h("svg:text", { class: "band-name", transform: `translate(${-LEFT + 16} ${b.y + b.h / 2}) rotate(-90)` }, "layer " + b.layer);
      back.append(text);
    }
    for (const row of graph.rows) back.append(h("svg:text", { class: "row-name", x: -LEFT + 30, y: row.y + 4 }, row.name));
    for (const t of scene.tracks) back.append(h("svg:line", { class: "track", x1: t.x, x2: t.x, y1: t.bottom, y2: t.top }));
    for (const f of frames) if (f.w > 0) back.append(h("svg:rect", { class: "head-frame", x: f.x, y: f.y, width: f.w, height: f.h, rx: 6 }), h("svg:text", { class: "head-name", x: f.x + 2, y: f.y - 4 }, f.text));
    for (const e of scene.edges) {
      const d = path(curve(e)), width = thick(e, scene.most);
      if (e.edge && shared(e.edge)) lines.append(h("svg:path", { class: "halo", d, "stroke-width": width + 5 }));
      const line = h("svg:path", { class: "edge " + (e.weight >= 0 ? "positive" : "negative"), d, "stroke-width": width.toFixed(2) });
      const hit = h("svg:path", { class: "hit", d, "data-id": e.id });
      lines.append(line, hit); this.things.set(e.id, e); this.parts.set(e.id, line);
    }
    for (const box of scene.boxes) {
      const only = circuits.length === 2 && box.kind !== "fold" && !nodeIn(box, 1 - scene.frame);
      const g = h("svg:g", { class: `node ${fillOf(box)}${only ? " only" : ""}`, "data-id": box.id, transform: `translate(${box.x} ${box.y})`, role: "button", "aria-label": box.words || box.label },
        h("svg:rect", { x: -box.w / 2, y: -box.h / 2, width: box.w, height: box.h, rx: 5 }),
        h("svg:text", { y: box.h > 30 ? -1 : 4 }, boxText(box)),
        box.h > 30 ? h("svg:text", { class: "caption", y: 12 }, cut(box.caption, 16)) : null,
        kept.notes[box.id] ? h("svg:circle", { class: "noted", cx: box.w / 2, cy: -box.h / 2, r: 4 }) : null);
      boxes.append(g); this.things.set(box.id, box); this.parts.set(box.id, g);
    }
    this.world.replaceChildren(back, lines, boxes);
    this.paint();
  }
  /** Values on a prompt as fills. */
  paint() {
    for (const box of this.scene.boxes) {
      const rect = this.parts.get(box.id).firstChild, share = shareAt(box);
      rect.style.setProperty("fill", share === null ? "" : `color-mix(in srgb, ${heat(Math.sign(share))} ${(100 * Math.min(1, Math.abs(share))).toFixed(1)}%, var(--plain))`);
    }
  }
  highlight(ids, focus) {
    this.root.classList.toggle("lit", Boolean(ids));
    for (const [id, part] of this.parts) { part.classList.toggle("on", Boolean(ids && ids.has(id))); part.classList.toggle("focus", id === focus); }
  }
  transform() { return d3.zoomTransform(this.root); }
  move(t) { d3.select(this.root).call(this.zoom.transform, t); }
  size() { return [this.root.clientWidth || 800, this.root.clientHeight || 600]; }
}
const nodeIn = (node, frame) => node.into.some((e) => e.weights[frame] !== null) || node.out.some((e) => e.weights[frame] !== null) || Boolean(node.bias && node.bias.weights[frame] !== null);
/** The share of its largest value that a node has on the chosen prompt and position; null without. */
function shareAt(box) {
  if (!view.overlay || !acts.ready || box.kind === "fold") return null;
  const value = valueOf(box.id, view.prompt, position());
  if (value === null) return null;
  const s = acts.series.get(box.id);
  return s === undefined ? value : acts.most[s] ? value / acts.most[s] : 0;
}
const heat = (share) => `rgb(${share >= 0 ? "42 111 187" : "224 123 18"} / ${Math.min(1, Math.abs(share)).toFixed(3)})`;
/** The transform that shows some boxes, or all. */
function fitted(chart, boxes) {
  const [width, height] = chart.size();
  const all = !boxes || !boxes.length;
  const left = all ? -LEFT : Math.min(...boxes.map((b) => b.x - b.w)), right = all ? graph.width + 20 : Math.max(...boxes.map((b) => b.x + b.w));
  const top = all ? 0 : Math.min(...boxes.map((b) => b.y - 60)), bottom = all ? graph.height : Math.max(...boxes.map((b) => b.y + 60));
  const k = Math.min(all ? 1.4 : 2.2, (width - 16) / (right - left), (height - 16) / (bottom - top));
  return d3.zoomIdentity.translate(width / 2 - k * (left + right) / 2, height / 2 - k * (top + bottom) / 2).scale(k);
}
