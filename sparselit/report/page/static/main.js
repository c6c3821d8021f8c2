// The page itself: its header, tabs and charts, pointer and keys, printing.
recall();
const large = nodes.length + edges.length > MOST_IN_SVG;
const tip = h("div", { id: "tip", role: "tooltip", hidden: true });
const says = h("div", { id: "says", class: "unseen", role: "status", "aria-live": "polite" });
const sides = data.kind === "compare" ? [0, 1] : [null];  // the circuit of each chart; null: the slider's
const charts = [];
let scenes = [], hovered = null;
const frameOf = (i) => (sides[i] === null ? view.frame : sides[i]);

function control(text, element) { return h("label", { class: "control" }, text + " ", element); }
const range = (name) => h("input", { type: "range", id: name, min: 0, max: 1, step: 0.01, value: view[name], oninput: (e) => change({ [name]: Number(e.target.value) }) });
function folding() {
  const box = (key, text, set) => h("label", {}, h("input", { type: "checkbox", checked: !view[set].has(key), onchange: (e) => { const next = new Set(view[set]); if (e.target.checked) next.delete(key); else next.add(key); change({ [set]: next }); } }), " " + text);
  return h("details", { class: "menu" }, h("summary", {}, "layers and heads"), h("div", { class: "sheet" }, layers.map((layer) => h("fieldset", {}, h("legend", {}, "layer " + layer), box("L" + layer, "shown", "hidden"), box("L" + layer, "opened", "folded"), heads.filter((x) => x.layer === layer).map((x) => box("H" + x.key, `head ${x.head} opened`, "folded"))))));
}
function toolbar() {
  const slider = data.kind !== "history" ? null : control("step", h("span", { class: "group" }, h("input", { type: "range", id: "frame", min: 0, max: circuits.length - 1, step: 1, value: view.frame, oninput: (e) => change({ frame: Number(e.target.value) }) }), h("output", { id: "step" })));
  return h("div", { class: "bar", id: "tools" }, slider,
    control("weight at least", range("weight")), control("loss without it at least", range("loss")),
    control("sign", h("select", { id: "sign", onchange: (e) => change({ sign: e.target.value }) }, ["all", "positive", "negative"].map((s) => h("option", { selected: view.sign === s }, s)))),
    control("find", h("input", { type: "search", id: "find", placeholder: "token, node, site", value: view.find, oninput: (e) => change({ find: e.target.value }) })),
    folding(), prompts ? control("values on the prompt", h("input", { type: "checkbox", id: "overlay", checked: view.overlay, onchange: (e) => change({ overlay: e.target.checked }) })) : null,
    h("button", { id: "fit", title: "key 0", onclick: () => fitAll() }, "fit"), h("button", { title: "key z", onclick: () => zoomToPin() }, "zoom to pinned"),
    h("button", { onclick: () => change({ weight: 0, loss: 0, sign: "all", find: "", hidden: new Set(), folded: new Set() }) }, "reset"));
}
const tabNames = { graph: "Graph", prompt: "One prompt", evidence: "Evidence", table: "Table" };
const tabs = h("div", { role: "tablist", "aria-label": "views" }, TABS.map((name) => h("button", { role: "tab", id: "tab-" + name, "aria-controls": "part-" + name, onclick: () => change({ tab: name }) }, tabNames[name])));
const parts = Object.fromEntries(TABS.map((name) => [name, h("section", { role: "tabpanel", id: "part-" + name, "aria-labelledby": "tab-" + name })]));
const toolsPlace = h("div"), tokensPlace = h("div", { id: "tokens" }), stage = h("div", { id: "stage", class: sides.length === 2 ? "two" : "" }), aside = h("aside", { id: "panel", "aria-label": "what is pinned" });
parts.graph.append(toolsPlace, tokensPlace, h("div", { class: "split" }, stage, aside));
function badges(one) {
  return h("span", { class: "badges" }, h("span", { class: "badge " + (one.complete ? "holds" : "fails") }, one.complete ? `minimal (${one.certified_on})` : "not certified"), h("span", { class: "badge" }, `${one.right} right, n ${one.n.toLocaleString("en")}`), h("span", { class: "badge" }, `loss ${number(one.loss)}`));
}
const heading = h("header", {}, h("h1", {}, data.kind === "compare" ? "Two circuits" : data.title), h("span", { id: "badges" }), h("span", { class: "push" }),
  h("button", { id: "theme", onclick: () => change({ theme: dark() ? "light" : "dark" }) }, "dark / light"), h("button", { id: "save", title: "this page with your labels and notes", onclick: () => download(name() + ".html", new Blob([fileText()], { type: "text/html" })) }, "save"),
  h("button", { id: "picture", onclick: () => download(name() + ".svg", new Blob([svgText()], { type: "image/svg+xml" })) }, "SVG"));
const name = () => data.title.replace(/[^A-Za-z0-9]+/g, "_").slice(0, 60);
const dark = () => (view.theme ? view.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
const printed = h("div", { id: "printed", "aria-hidden": "true" });
app.replaceChildren(heading, tabs, h("main", {}, Object.values(parts)), printed, tip, says);

for (const i of sides.keys()) {
  const host = h("div", { class: "host" });
  stage.append(h("div", { class: "side" }, sides.length === 2 ? h("h2", {}, circuits[i].name, " ", h("small", {}, circuits[i].title)) : null, host));
  const chart = new (large ? CanvasChart : SvgChart)(host, { hover: (thing, event) => hover(thing, event, i), click: (thing) => click(thing) });
  let still = false;
  chart.moved = (t, by) => {
    if (still) return;
    charts.forEach((other) => { if (other !== chart) { still = true; other.moving = true; if (!chart.moving) other.move(t); other.moving = false; still = false; } });
    view.zoom = [t.x, t.y, t.k]; remember();
  };
  charts.push(chart);
  chart.root.addEventListener("keydown", (event) => walk(event));
}
function hover(thing, event, i) {
  if (thing !== hovered) { hovered = thing; light(); }
  if (!thing) { tip.hidden = true; return; }
  tip.replaceChildren(...said(thing, frameOf(i)).map((line, k) => h(k ? "div" : "b", {}, cut(line, 160))));
  tip.hidden = false;
  const [w, t] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = Math.max(4, Math.min(event.clientX + 14, innerWidth - w - 4)) + "px";
  tip.style.top = Math.max(4, event.clientY + 18 + t > innerHeight ? event.clientY - t - 10 : event.clientY + 18) + "px";
}
function click(thing) {
  if (thing && thing.kind === "fold") { const next = new Set(view.folded); next.delete(thing.fold); change({ folded: next }); return; }
  const id = thing ? (thing.edge ? thing.edge.id : thing.a ? "" : thing.id) : "";
  change({ pin: id === view.pin ? "" : id });
}
/** What stands out: of a node its edges and their ends, of an edge its ends. */
function light() {
  charts.forEach((chart, i) => {
    const thing = hovered || chart.things.get(view.pin);
    if (!thing) { chart.highlight(null, view.pin); return; }
    const ids = new Set([thing.id]);
    if (thing.a) ids.add(thing.a.id).add(thing.b.id);
    else for (const e of scenes[i].edges) if (e.a === thing || e.b === thing) ids.add(e.id).add(e.a.id).add(e.b.id);
    if (!thing.a) for (const other of through(thing)) ids.add(other.id);
    chart.highlight(ids, view.pin);
  });
}
function walk(event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  const boxes = scenes[0].boxes, here = boxes.find((b) => b.id === view.pin) || boxes.find((b) => b === hovered);
  if (step) {
    event.preventDefault();
    const from = here || { x: graph.width / 2, y: step[1] < 0 ? graph.height + 1 : step[1] > 0 ? -1 : graph.rows[0].y };
    const ahead = boxes.filter((b) => b !== here && (step[0] ? Math.abs(b.y - from.y) < 2 && (b.x - from.x) * step[0] > 0 : (b.y - from.y) * step[1] > 2));
    ahead.sort((a, b) => Math.abs(a.y - from.y) * 3 + Math.abs(a.x - from.x) - Math.abs(b.y - from.y) * 3 - Math.abs(b.x - from.x));
    if (ahead.length) { change({ pin: ahead[0].id }); says.textContent = said(ahead[0], frameOf(0)).join(". "); }
  } else if (event.key === "Escape") change({ pin: "" });
  else if (event.key === "+" || event.key === "=") charts[0].move(charts[0].transform().scale(1.25));
  else if (event.key === "-") charts[0].move(charts[0].transform().scale(0.8));
  else if (event.key === "0") fitAll();
  else if (event.key === "z") zoomToPin();
}
addEventListener("keydown", (event) => {
  if (/INPUT|TEXTAREA|SELECT/.test(event.target.tagName) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") { event.preventDefault(); change({ tab: "graph" }); document.getElementById("find").focus(); }
  if (event.target.getAttribute && event.target.getAttribute("role") === "tab" && /Arrow(Left|Right)/.test(event.key)) {
    const next = TABS[(TABS.indexOf(view.tab) + (event.key === "ArrowRight" ? 1 : TABS.length - 1)) % TABS.length];
    change({ tab: next }); document.getElementById("tab-" + next).focus();
  }
});
function fitAll() { charts.forEach((chart) => chart.move(fitted(chart))); view.zoom = null; remember(); }
function zoomToPin() {
  const node = nodeById.get(view.pin), edge = edgeById.get(view.pin);
  const near = node ? [node, ...node.into.map((e) => e.source), ...node.out.map((e) => e.target)] : edge ? [edge.source, edge.target] : [];
  if (near.length) charts[0].move(fitted(charts[0], near));
}
/** The tokens of the chosen prompt, to choose a position by. */
function tokenBar() {
  if (!view.overlay || !prompts || !acts.ready) return [];
  const one = prompts.prompts[view.prompt];
  return [h("div", { class: "bar" }, h("button", { "aria-label": "prompt before", onclick: () => change({ prompt: (view.prompt + prompts.prompts.length - 1) % prompts.prompts.length, at: -1 }) }, "◀"), h("span", {}, `prompt ${view.prompt + 1}`), h("button", { "aria-label": "next prompt", onclick: () => change({ prompt: (view.prompt + 1) % prompts.prompts.length, at: -1 }) }, "▶"),
    h("span", { class: "strip" }, one.tokens.map((t, i) => h("button", { class: "cell" + (i === position() ? " here" : ""), onclick: () => change({ at: i }) }, cut(token(t), 12)))), h("span", { class: "dim" }, "→ " + token(one.answer)))];
}
const SCENE = ["frame", "weight", "loss", "sign", "find", "hidden", "folded"];
function draw(changed) {
  const has = (...names) => !changed || names.some((one) => one in changed) || !Object.keys(changed).length;
  document.documentElement.setAttribute("data-theme", dark() ? "dark" : "light");
  for (const one of TABS) { parts[one].hidden = one !== view.tab; const tab = document.getElementById("tab-" + one); tab.setAttribute("aria-selected", String(one === view.tab)); tab.tabIndex = one === view.tab ? 0 : -1; }
  if (has("frame")) document.getElementById("badges").replaceChildren(...(data.kind === "compare" ? [] : [badges(circuits[view.frame])]));
  if (!changed || has("hidden", "folded") && !Object.keys(changed).every((key) => key === "frame")) { const open = toolsPlace.querySelector("details") && toolsPlace.querySelector("details").open; toolsPlace.replaceChildren(toolbar()); toolsPlace.querySelector("details").open = Boolean(open); }
  const label = document.getElementById("step");
  if (label) label.textContent = `${circuits[view.frame].name}: ${circuits[view.frame].edges} edges, loss ${number(circuits[view.frame].loss)}`;
  if (view.tab === "graph") {
    const fresh = has(...SCENE) || !scenes.length;
    if (fresh) { scenes = sides.map((_, i) => sceneOf(frameOf(i))); charts.forEach((chart, i) => chart.render(scenes[i])); }
    else if (has("theme")) charts.forEach((chart) => chart.paint());
    if (!fresh && has("overlay", "prompt", "at")) charts.forEach((chart) => chart.paint());
    if (has("overlay", "prompt", "at")) { tokensPlace.replaceChildren(...tokenBar()); if (changed && !view.zoom) fitAll(); }
    if (has("pin", "frame", "prompt", "at", "overlay")) aside.replaceChildren(...panel(view.frame));
    light();
  }
  if (view.tab === "prompt") parts.prompt.replaceChildren(...promptTab());
  if (view.tab === "evidence" && has("tab", "frame")) parts.evidence.replaceChildren(...evidenceTab());
  if (view.tab === "table") parts.table.replaceChildren(...tableTab());
  if (changed && "tab" in changed && view.tab === "graph") { scenes = sides.map((_, i) => sceneOf(frameOf(i))); charts.forEach((chart, i) => chart.render(scenes[i])); aside.replaceChildren(...panel(view.frame)); tokensPlace.replaceChildren(...tokenBar()); light(); }
}
/** The whole graph as a picture of its own, for a file and for paper. */
function still(frame) {
  const host = h("div"), chart = new SvgChart(host, { hover() {}, click() {} });
  chart.render(sceneOf(frame));
  chart.root.setAttribute("viewBox", `${-LEFT - 10} -10 ${graph.width + LEFT + 40} ${graph.height + 20}`);
  return chart.root;
}
function svgText() {
  const root = still(view.frame), style = getComputedStyle(document.documentElement);
  for (const part of root.querySelectorAll(".hit")) part.remove();
  const looks = { ".positive": ["stroke", "--positive"], ".negative": ["stroke", "--negative"] };
  for (const [query, [property, variable]] of Object.entries(looks)) for (const part of root.querySelectorAll(query)) { part.setAttribute(property, style.getPropertyValue(variable).trim()); part.setAttribute("fill", "none"); if (query === ".negative") part.setAttribute("stroke-dasharray", "7 4"); }
  for (const part of root.querySelectorAll("text")) { part.setAttribute("font-family", "sans-serif"); part.setAttribute("font-size", part.classList.contains("caption") ? 8 : 11); if (part.closest(".node")) part.setAttribute("text-anchor", "middle"); }
  for (const part of root.querySelectorAll(".node rect")) { part.setAttribute("fill", part.style.fill || "#ffffff"); part.setAttribute("stroke", "#5a5a5a"); }
  for (const part of root.querySelectorAll(".track,.head-frame")) { part.setAttribute("stroke", "#9a9a9a"); part.setAttribute("fill", "none"); part.setAttribute("stroke-dasharray", "2 4"); }
  for (const part of root.querySelectorAll(".band")) part.setAttribute("fill", "#f2f4f7");
  root.setAttribute("xmlns", SVG);
  return new XMLSerializer().serializeToString(root);
}
addEventListener("beforeprint", () => printed.replaceChildren(h("h1", {}, data.title), still(view.frame), evidenceOf(circuits[view.frame])));
addEventListener("afterprint", () => printed.replaceChildren());
addEventListener("resize", () => { if (view.tab === "graph" && !view.zoom) fitAll(); else charts.forEach((chart) => chart.paint && chart.scene && chart.paint()); });
addEventListener("hashchange", () => { if (location.hash.slice(1) !== fragment()) location.reload(); });
listeners.push(draw);
const began = performance.now();
draw(null);
if (view.zoom) { const [x, y, k] = view.zoom; charts.forEach((chart) => chart.move(d3.zoomIdentity.translate(x, y).scale(k))); } else fitAll();
app.setAttribute("data-drawn", (performance.now() - began).toFixed(1));
unpack().then(() => { draw({ prompt: 1, overlay: 1, at: 1 }); app.setAttribute("data-ready", "1"); });
