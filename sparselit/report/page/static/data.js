// The data of the page: read once, never changed. Text from it is only ever set as text.
const SVG = "http://www.w3.org/2000/svg";
const app = document.getElementById("app");
const untouched = app.cloneNode(true);
const data = JSON.parse(document.getElementById("data").textContent);
const graph = data.graph, prompts = data.prompts, circuits = data.circuits;

/** An element with attributes, listeners and children; strings become text. */
function h(tag, attributes, ...children) {
  const svg = tag.startsWith("svg:");
  const element = svg ? document.createElementNS(SVG, tag.slice(4)) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "css") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(9)) if (child !== null && child !== undefined && child !== false) element.append(child);
  return element;
}

const number = (x, digits = 4) => {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const text = Math.abs(x) >= 1e5 || Math.abs(x) < 1e-4 ? x.toExponential(2) : String(Number(x.toPrecision(digits)));
  return text.replace("-", "−");
};
const signed = (x, digits) => (x > 0 ? "+" : "") + number(x, digits);
const cut = (text, most) => { const all = [...text]; return all.length > most ? all.slice(0, most - 1).join("") + "…" : text; };
const BLANK = { " ": "␣", "\n": "⏎", "\t": "⇥", "": "∅" };
const token = (t) => { const text = prompts && t < prompts.vocabulary.length ? prompts.vocabulary[t] : "#" + t; return BLANK[text] || text; };

// -- nodes and edges --------------------------------------------------------------------------------------------------

const nodes = graph.nodes.map((node, i) => ({
  ...node, index: i, id: graph.sites[node.site] + ":" + node.channel, site: graph.sites[node.site],
  bias: null, into: [], out: [], h: node.caption && node.head === null ? 34 : 24,
}));
const nodeById = new Map(nodes.map((node) => [node.id, node]));
const place = (e, bias) => graph.parameters[e[2]] + "[" + e[3] + (bias ? "" : "," + e[4]) + "]";
const edges = graph.edges.map((e, i) => ({
  index: i, id: place(e, false), source: nodes[e[0]], target: nodes[e[1]], parameter: graph.parameters[e[2]],
  weights: e[5], losses: e[6],
}));
const edgeById = new Map(edges.map((edge) => [edge.id, edge]));
const biases = graph.biases.map((e) => ({ id: place(e, true), target: nodes[e[1]], weights: e[5], losses: e[6] }));
for (const edge of edges) { edge.source.out.push(edge); edge.target.into.push(edge); }
for (const bias of biases) bias.target.bias = bias;
const stream = new Map();  // nodes of a channel of the residual stream, by channel
for (const node of nodes) if (node.role) (stream.get(node.channel) || stream.set(node.channel, []).get(node.channel)).push(node);
const through = (node) => (node.role ? stream.get(node.channel) : []).filter(
  (other) => other !== node && other.role !== node.role && (node.role === "reads" ? other.y > node.y : other.y < node.y));
const largest = circuits.map((_, f) => edges.reduce((most, e) => Math.max(most, Math.abs(e.weights[f] || 0)), 1e-12));
const largestLoss = circuits.map((_, f) => edges.reduce((most, e) => Math.max(most, Math.abs(e.losses[f] || 0)), 1e-12));
const layers = [...new Set(nodes.map((n) => n.layer).filter((l) => l !== null))].sort((a, b) => a - b);
const heads = [...new Map(nodes.filter((n) => n.head !== null).map((n) => [n.layer + "." + n.head, n])).keys()]
  .map((key) => { const [layer, head] = key.split(".").map(Number); return { key, layer, head, members: nodes.filter((n) => n.layer === layer && n.head === head) }; });

// -- arrays -----------------------------------------------------------------------------------------------------------

async function bytes(text) {
  const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const flow = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(flow).arrayBuffer();
}
const acts = { ready: false };
/** Unpack the prompts' arrays; the graph is drawn before. */
async function unpack() {
  if (!prompts) return;
  const x = prompts.extremes;
  const [values, attention, chosen, shown, tokens, removed] = await Promise.all([
    bytes(prompts.values.data), bytes(prompts.attention.data), bytes(x.chosen), bytes(x.data), bytes(x.tokens),
    prompts.removed ? bytes(prompts.removed.data) : null]);
  acts.values = prompts.values.bits === 16 ? new Int16Array(values) : new Int8Array(values);
  acts.attention = new Uint8Array(attention);
  acts.chosen = new Uint16Array(chosen);
  acts.shown = new Int8Array(shown);
  acts.tokens = new Uint16Array(tokens);
  acts.removed = removed && new Int8Array(removed);
  acts.series = new Map(prompts.series.map(([site, channel], i) => [site + ":" + channel, i]));
  acts.offsets = [];  // where a prompt's attention begins
  let at = 0;
  for (const p of prompts.prompts) { acts.offsets.push(at); at += prompts.heads.length * p.tokens.length * (p.tokens.length + 1) / 2; }
  acts.most = prompts.values.scale.map((s) => s * (2 ** (prompts.values.bits - 1) - 1));
  acts.ready = true;
}
/** The value of a site's channel on a stored prompt at a position; null where none is stored. */
function valueOf(id, p, at) {
  const [site, channel] = [id.slice(0, id.lastIndexOf(":")), Number(id.slice(id.lastIndexOf(":") + 1))];
  if (site === "token") return prompts.prompts[p].tokens[at] === channel ? 1 : 0;
  if (site === "position") return at === channel ? 1 : 0;
  const s = acts.ready ? acts.series.get(id) : undefined;
  if (s === undefined) return null;
  return acts.values[(s * prompts.prompts.length + p) * prompts.positions + at] * prompts.values.scale[s];
}
/** The value that an edge carries away from its source: a head's value leaves mixed over positions. */
const carried = (node, p, at) => valueOf(node.kind === "v" ? node.id.replace(".attn.v:", ".attn.z:") : node.id, p, at);
function attentionOf(head, p, query, key) {
  if (p >= prompts.attention.prompts || key > query) return null;
  const n = prompts.prompts[p].tokens.length;
  return acts.attention[acts.offsets[p] + head * n * (n + 1) / 2 + query * (query + 1) / 2 + key] / 255;
}
/** By how much the margin of the right answer falls or rises on a prompt when an edge (or bias) alone is removed. */
function removedOn(i, p) {
  return acts.removed ? acts.removed[i * prompts.prompts.length + p] * prompts.removed.scale[i] : null;
}
