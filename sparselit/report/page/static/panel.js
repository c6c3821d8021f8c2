// What is said of one node or edge: the line under the pointer, and the panel of what is pinned.
const removedWords = (losses, frame) => losses[frame] === null ? "" : `${graph.metrics[frame].replace("_", " ")} when it alone is removed: ${number(losses[frame])}`;
/** The lines of the tooltip. */
function said(thing, frame) {
  if (thing.a) {
    if (!thing.edge) return [thing.id, `${thing.members.length} edges, weights add up to ${signed(thing.weight)}`];
    const e = thing.edge, lines = [e.id, `${e.source.words} → ${e.target.words}`, `weight ${signed(e.weights[frame])}`];
    if (removedWords(e.losses, frame)) lines.push(removedWords(e.losses, frame));
    if (view.overlay && acts.ready) { const v = carried(e.source, view.prompt, position()); if (v !== null) lines.push(`carries ${signed(v * e.weights[frame])} at “${token(prompts.prompts[view.prompt].tokens[position()])}”`); }
    if (circuits.length > 1) lines.push("in " + inWhich(e.weights));
    return lines;
  }
  if (thing.kind === "fold") return [thing.label, `${thing.members.length} nodes, folded; click opens it`];
  const lines = [kept.labels[thing.id] ? `${kept.labels[thing.id]} (${thing.words})` : thing.words, [thing.id, thing.where].filter(Boolean).join(", "),
    `${live(thing.into, frame).length} edges in, ${live(thing.out, frame).length} out`];
  if (thing.bias && thing.bias.weights[frame] !== null) { lines.push(`bias ${signed(thing.bias.weights[frame])}`); if (removedWords(thing.bias.losses, frame)) lines.push("bias: " + removedWords(thing.bias.losses, frame)); }
  if (view.overlay && acts.ready) { const v = valueOf(thing.id, view.prompt, position()); if (v !== null) lines.push(`value ${signed(v)} at “${token(prompts.prompts[view.prompt].tokens[position()])}”`); }
  return lines;
}
const inWhich = (weights) => weights.map((w, i) => (w === null ? null : circuits[i].name)).filter(Boolean).join(", ");
const live = (list, frame) => list.filter((e) => e.weights[frame] !== null);
const nodeButton = (node) => h("button", { class: "link", onclick: () => change({ pin: node.id }) }, kept.labels[node.id] || node.words);

function panel(frame) {
  const node = nodeById.get(view.pin), edge = edgeById.get(view.pin);
  if (!node && !edge) return [h("h2", {}, "Nothing is pinned"), h("p", { class: "dim" }, "Point at a node or an edge to read it, click to pin it. Arrow keys do the same."), legend()];
  const thing = node || edge;
  const head = [h("h2", {}, node ? kept.labels[node.id] || node.words : "edge " + edge.id), h("button", { class: "close", "aria-label": "unpin", onclick: () => change({ pin: "" }) }, "×")];
  const own = [
    h("label", {}, "label ", h("input", { id: "label", value: kept.labels[thing.id] || "", maxlength: 80, onchange: (e) => keep("labels", thing.id, e.target.value) })),
    h("label", {}, "note ", h("textarea", { id: "note", rows: 2, maxlength: 2000, value: kept.notes[thing.id] || "", onchange: (e) => keep("notes", thing.id, e.target.value) })),
  ];
  if (edge) return [h("div", { class: "head" }, ...head), h("ul", {}, said({ a: 1, edge }, frame).slice(1).map((line) => h("li", {}, line))), h("p", {}, "from ", nodeButton(edge.source)), h("p", {}, "to ", nodeButton(edge.target)), ...own];
  return [h("div", { class: "head" }, ...head), h("p", { class: "dim" }, [node.id, node.where].filter(Boolean).join(", ")),
    role(node, frame), ...own, heatMaps(node)];
}
function keep(kind, id, text) { if (text) kept[kind][id] = text; else delete kept[kind][id]; change({}); }
function role(node, frame) {
  const side = (title, list, other) => live(list, frame).length ? h("section", {}, h("h3", {}, title), h("ul", { class: "edges" }, live(list, frame)
    .sort((a, b) => Math.abs(b.weights[frame]) - Math.abs(a.weights[frame])).slice(0, 40).map((e) => h("li", {},
      h("button", { class: "weight " + (e.weights[frame] > 0 ? "positive" : "negative"), title: e.id, onclick: () => change({ pin: e.id }) }, signed(e.weights[frame], 3)), " ", nodeButton(other(e)),
      e.losses[frame] === null ? null : h("span", { class: "dim" }, ` ${graph.metrics[frame].replace("_", " ")} without it ${number(e.losses[frame], 3)}`)))),
    live(list, frame).length > 40 ? h("p", { class: "dim" }, `${live(list, frame).length - 40} more in the table`) : null) : null;
  const near = through(node).filter((n) => nodeIn(n, frame));
  const bias = node.bias && node.bias.weights[frame] !== null ? h("p", {}, `It holds a constant: its bias ${signed(node.bias.weights[frame])}. `, removedWords(node.bias.losses, frame)) : null;
  return h("div", {}, bias, side("reads", node.into, (e) => e.source), side("writes", node.out, (e) => e.target),
    near.length ? h("section", {}, h("h3", {}, node.role === "reads" ? `residual ${node.channel} is written by` : `residual ${node.channel} is read by`), h("ul", {}, near.map((n) => h("li", {}, h("button", { class: "link", onclick: () => change({ pin: n.id }) }, n.where.replace(/^(read|written) by /, "")))))) : null);
}
const strip = (tokens, values, most, at) => h("span", { class: "strip" }, tokens.map((t, i) => {
  const share = most ? values[i] / most : 0;
  return h("span", { class: "cell" + (share < -0.02 ? " minus" : "") + (i === at ? " here" : ""), css: { background: heat(share) }, title: `${token(t)}: ${signed(values[i], 3)}` }, cut(token(t), 12));
}));
/** Token heat-maps: the prompts on which a node is largest, smallest, and some that were drawn. */
function heatMaps(node) {
  if (!prompts) return h("p", { class: "dim" }, "This page holds no prompts.");
  if (!acts.ready) return h("p", { class: "dim" }, "…");
  const s = acts.series.get(node.id);
  if (s === undefined) return h("p", { class: "dim" }, node.kind === "token" ? "1 where the token stands, 0 elsewhere." : "No values are stored for it.");
  const x = prompts.extremes, wide = 2 * x.each + x.drawn, width = prompts.positions;
  const most = x.scale[s] * 127;
  const line = (j) => {
    const k = acts.chosen[s * wide + j], n = x.length[k], begin = (s * wide + j) * width;
    const tokens = Array.from(acts.tokens.subarray(k * width, k * width + n)), values = Array.from(acts.shown.subarray(begin, begin + n), (v) => v * x.scale[s]);
    return h("li", {}, strip(tokens, values, most, -1), h("span", { class: "dim" }, " → " + token(x.answer[k])));
  };
  const part = (title, from, to) => to > from ? h("section", {}, h("h3", {}, title), h("ol", { class: "strips" }, Array.from({ length: to - from }, (_, i) => line(from + i)))) : null;
  const means = x.means[s];
  return h("div", {}, h("p", {}, `Not zero at ${number(100 * x.active[s], 3)} % of positions. Mean at the answer position, by the prompt's answer: `, means.map(([t, v], i) => [i ? ", " : "", h("code", {}, token(t)), " " + signed(v, 3)]), "."),
    h("p", { class: "dim" }, `The first ${prompts.pool.toLocaleString("en")} of ${prompts.n.toLocaleString("en")} report prompts; the circuit run alone; blue above zero, orange and underlined below; full colour is ${number(most, 3)}.`),
    part("largest", 0, x.each), part("smallest", x.each, 2 * x.each), part("drawn at random", 2 * x.each, wide));
}
function legend() {
  const line = (kind, width) => h("svg:svg", { class: "sample", viewBox: "0 0 40 10", width: 40, height: 10, "aria-hidden": "true" }, h("svg:path", { class: "edge " + kind, d: "M1 5L39 5", "stroke-width": width }));
  return h("ul", { class: "legend" }, h("li", {}, line("positive", 3), " positive weight"), h("li", {}, line("negative", 3), " negative weight, dashed"),
    h("li", {}, line("positive", 5), ` thickest: ${number(largest[view.frame], 3)}`),
    circuits.length === 2 ? h("li", {}, h("span", { class: "halo-sample" }), " edges of both circuits have a halo; nodes of one alone a dashed frame") : null);
}
