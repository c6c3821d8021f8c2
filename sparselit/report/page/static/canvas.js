// The chart for large graphs: drawn on a canvas, found by a grid of cells.
const CELL = 48, SAMPLES = 20;
class CanvasChart {
  constructor(host, on) {
    this.host = host; this.on = on;
    this.root = h("canvas", { class: "chart", tabindex: 0, role: "application", "aria-label": "The circuit's graph. Arrow keys pin the next node, Escape lets it go." });
    this.over = h("canvas", { class: "chart over", "aria-hidden": "true" });
    host.append(this.root, this.over);
    this.now = d3.zoomIdentity;
    this.zoom = d3.zoom().scaleExtent([0.03, 8]).on("zoom", (event) => {
      this.now = event.transform; this.draw();
      if (this.moved) this.moved(event.transform, event.sourceEvent);
    });
    d3.select(this.root).call(this.zoom).on("dblclick.zoom", null);
    this.root.addEventListener("pointermove", (event) => on.hover(this.at(event), event));
    this.root.addEventListener("pointerleave", (event) => on.hover(null, event));
    this.root.addEventListener("click", (event) => { if (!event.defaultPrevented) on.click(this.at(event)); });
  }
  render(scene) {
    this.scene = scene;
    this.things = new Map([...scene.edges, ...scene.boxes].map((thing) => [thing.id, thing]));
    this.cells = new Map();
    this.strokes = new Map();
    const put = (x, y, thing) => { const key = Math.floor(x / CELL) + "," + Math.floor(y / CELL); const cell = this.cells.get(key); if (!cell) this.cells.set(key, new Set([thing])); else cell.add(thing); };
    for (const e of scene.edges) {
      const c = curve(e), key = (e.weight >= 0 ? "p" : "n") + Math.round(thick(e, scene.most));
      e.curve = c;
      let stroke = this.strokes.get(key);
      if (!stroke) this.strokes.set(key, stroke = { path: new Path2D(), width: thick(e, scene.most), positive: e.weight >= 0 });
      stroke.path.moveTo(c[0], c[1]); stroke.path.bezierCurveTo(...c.slice(2));
      for (let i = 0; i <= SAMPLES; i++) put(...pointOn(c, i / SAMPLES), e);
    }
    for (const b of scene.boxes) for (let x = b.x - b.w / 2; x <= b.x + b.w / 2 + CELL; x += CELL) for (const y of [b.y - b.h / 2, b.y + b.h / 2]) put(Math.min(x, b.x + b.w / 2), y, b);
    this.paint();
  }
  paint() { this.draw(); }
  at(event) {
    const area = this.root.getBoundingClientRect(), [x, y] = this.now.invert([event.clientX - area.left, event.clientY - area.top]);
    const near = 6 / this.now.k;
    let best = null, least = near;
    for (let i = -1; i <= 1; i++) for (let j = -1; j <= 1; j++) for (const thing of this.cells.get((Math.floor(x / CELL) + i) + "," + (Math.floor(y / CELL) + j)) || []) {
      if (!thing.curve) { if (Math.abs(x - thing.x) <= thing.w / 2 && Math.abs(y - thing.y) <= thing.h / 2) return thing; continue; }
      const far = distance(thing.curve, x, y);
      if (far < least) { least = far; best = thing; }
    }
    return best;
  }
  draw() {
    if (!this.scene) return;
    const [width, height] = this.size(), ratio = window.devicePixelRatio || 1, style = getComputedStyle(app);
    for (const canvas of [this.root, this.over]) if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) { canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio); }
    const g = this.root.getContext("2d"), color = (name) => style.getPropertyValue(name).trim(), t = this.now;
    g.setTransform(1, 0, 0, 1, 0, 0); g.clearRect(0, 0, this.root.width, this.root.height);
    g.setTransform(ratio * t.k, 0, 0, ratio * t.k, ratio * t.x, ratio * t.y);
    const { bands, frames } = grounds();
    g.font = "bold 13px system-ui, sans-serif"; g.textBaseline = "middle"; g.textAlign = "left";
    for (const b of bands) { g.fillStyle = color("--band"); g.fillRect(-LEFT, b.y, graph.width + LEFT + 20, b.h); }
    g.fillStyle = color("--dim"); g.font = `${Math.min(60, Math.max(11, 11 / t.k))}px system-ui, sans-serif`;
    for (const row of graph.rows) g.fillText(row.layer === null ? row.name : `${row.layer} ${row.name}`, -LEFT + 6, row.y);
    g.strokeStyle = color("--line"); g.lineWidth = 1; g.setLineDash([2, 4]); g.beginPath();
    for (const track of this.scene.tracks) { g.moveTo(track.x, track.bottom); g.lineTo(track.x, track.top); }
    g.stroke(); g.setLineDash([]);
    for (const f of frames) g.strokeRect(f.x, f.y, f.w, f.h);
    const faded = Boolean(this.lit);
    g.globalAlpha = faded ? 0.12 : 0.55;
    for (const stroke of [...this.strokes.values()].sort((p, q) => p.width - q.width)) {
      g.strokeStyle = color(stroke.positive ? "--positive" : "--negative"); g.lineWidth = stroke.width;
      g.stroke(stroke.path);
    }
    g.globalAlpha = 1;
    const named = t.k > 0.45;
    g.textAlign = "center"; g.lineWidth = 1;
    for (const b of this.scene.boxes) this.box(g, b, color, named);
    this.overlay();
  }
  box(g, b, color, named) {
    const share = shareAt(b);
    g.fillStyle = color("--" + fillOf(b)); g.strokeStyle = color("--frame");
    g.beginPath(); g.rect(b.x - b.w / 2, b.y - b.h / 2, b.w, b.h); g.fill();
    if (share !== null) { g.fillStyle = heat(share); g.fill(); }
    g.stroke();
    if (named) { g.fillStyle = color("--ink"); g.font = "11px system-ui, sans-serif"; g.fillText(boxText(b), b.x, b.y); }
  }
  highlight(ids, focus) {
    const before = Boolean(this.lit);
    this.lit = ids; this.focus = focus;
    if (before !== Boolean(ids)) this.draw(); else this.overlay();
  }
  overlay() {
    const g = this.over.getContext("2d"), ratio = window.devicePixelRatio || 1, t = this.now, style = getComputedStyle(app);
    const color = (name) => style.getPropertyValue(name).trim();
    g.setTransform(1, 0, 0, 1, 0, 0); g.clearRect(0, 0, this.over.width, this.over.height);
    g.setTransform(ratio * t.k, 0, 0, ratio * t.k, ratio * t.x, ratio * t.y);
    const ids = new Set(this.lit || []);
    if (this.focus) ids.add(this.focus);
    const shown = [...ids].map((id) => this.things.get(id)).filter(Boolean);
    for (const e of shown) if (e.curve) {
      g.strokeStyle = color(e.weight >= 0 ? "--positive" : "--negative"); g.lineWidth = thick(e, this.scene.most) + 1;
      g.setLineDash(e.weight >= 0 ? [] : [7, 4]);
      g.beginPath(); g.moveTo(e.curve[0], e.curve[1]); g.bezierCurveTo(...e.curve.slice(2)); g.stroke();
    }
    g.setLineDash([]); g.textAlign = "center"; g.textBaseline = "middle"; g.lineWidth = 2;
    for (const b of shown) if (!b.curve) this.box(g, b, (name) => color(name === "--frame" ? "--ink" : name), true);
  }
  transform() { return this.now; }
  move(t) { d3.select(this.root).call(this.zoom.transform, t); }
  size() { return [this.host.clientWidth || 800, this.host.clientHeight || 600]; }
}
function pointOn(c, t) {
  const u = 1 - t, a = u * u * u, b = 3 * u * u * t, d = 3 * u * t * t, e = t * t * t;
  return [a * c[0] + b * c[2] + d * c[4] + e * c[6], a * c[1] + b * c[3] + d * c[5] + e * c[7]];
}
function distance(c, x, y) {
  let least = Infinity, [px, py] = [c[0], c[1]];
  for (let i = 1; i <= SAMPLES; i++) {
    const [qx, qy] = pointOn(c, i / SAMPLES), dx = qx - px, dy = qy - py;
    const t = Math.max(0, Math.min(1, ((x - px) * dx + (y - py) * dy) / (dx * dx + dy * dy || 1)));
    least = Math.min(least, Math.hypot(x - px - t * dx, y - py - t * dy)); [px, py] = [qx, qy];
  }
  return least;
}
