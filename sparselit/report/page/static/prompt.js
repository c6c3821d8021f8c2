// One prompt, step by step: values of nodes at positions, attention and why, edges that carried the answer.
const MOST_ROWS = 12;
let every = false;
function promptTab() {
  if (!prompts) return [h("p", {}, "This page holds no prompts: the circuit was shown from its record alone.")];
  if (!acts.ready) return [h("p", {}, "…")];
  const p = view.prompt, one = prompts.prompts[p], partner = one.partner, at = position();
  const choice = h("select", { id: "prompt", "aria-label": "prompt", onchange: (e) => change({ prompt: Number(e.target.value), at: -1, query: -1, key: -1 }) },
    prompts.prompts.map((q, i) => h("option", { value: i, selected: i === p }, `${i + 1}. ${cut(q.tokens.map(token).join(""), 50)} → ${cut(token(q.answer), 12)} (margin ${signed(q.margin, 3)})`)));
  const step = (by) => change({ row: Math.max(0, Math.min(graph.rows.length - 1, (view.row < 0 ? (by > 0 ? -1 : graph.rows.length) : view.row) + by)) });
  const bar = h("div", { class: "bar" }, choice,
    partner !== p ? h("button", { onclick: () => change({ prompt: partner }) }, "swap with the corrupted prompt") : null,
    h("span", { class: "group", role: "group", "aria-label": "step" }, h("button", { onclick: () => step(-1), "aria-label": "step back" }, "◀"), h("output", {}, view.row < 0 ? "all steps" : `step ${view.row + 1} of ${graph.rows.length}: ${rowName(graph.rows[view.row])}`), h("button", { onclick: () => step(1), "aria-label": "step on" }, "▶"), h("button", { onclick: () => change({ row: -1 }) }, "all")));
  const line = h("p", { class: "dim" }, `right answer “${token(one.answer)}”, wrong answer “${token(one.wrong)}”, margin ${signed(one.margin)}${one.kind ? ", kind " + one.kind : ""}. Values are those of the circuit run alone; position ${at + 1} is chosen.`);
  const views = [h("section", {}, h("h3", {}, "this prompt"), matrix(p, null))];
  if (partner !== p) views.push(h("section", {}, h("h3", {}, "the corrupted prompt"), matrix(partner, null)), h("section", {}, h("h3", {}, "difference"), matrix(p, partner)));
  return [bar, line, h("div", { class: "matrices" }, views), attentionPart(), answerPart()];
}
const rowName = (row) => (row.layer === null ? "" : `layer ${row.layer} `) + row.name;
/** Values of nodes (rows) at positions (columns), bottom of the model first; of the difference with another prompt. */
function matrix(p, minus) {
  const n = lengthOf(p), tokens = prompts.prompts[p].tokens, at = Math.min(position(), n - 1);
  const top = h("tr", {}, h("th", { scope: "col" }, "node"), tokens.map((t, i) => h("th", { scope: "col", class: (i === at ? "here" : "") + (minus !== null && prompts.prompts[minus].tokens[i] !== t ? " changed" : "") }, h("button", { class: "plain", title: `position ${i + 1}`, onclick: () => change({ at: i }) }, cut(token(t), 6)))));
  const body = [];
  graph.rows.forEach((row, r) => {
    if (view.row >= 0 && r !== view.row) return;
    let members = nodes.filter((node) => node.row === r && node.block !== "input" && acts.series.has(node.id));
    if (!members.length) return;
    const size = (node) => { let most = 0; for (let i = 0; i < n; i++) most = Math.max(most, Math.abs(valueOf(node.id, p, i))); return most; };
    const all = members.length;
    if (!every && view.row < 0 && all > MOST_ROWS) members = members.map((m) => [m, size(m)]).sort((a, b) => b[1] - a[1]).slice(0, MOST_ROWS).map(([m]) => m).sort((a, b) => a.x - b.x);
    body.push(h("tr", { class: "group" }, h("th", { colspan: n + 1, scope: "rowgroup" }, rowName(row) + (members.length < all ? ` (the ${members.length} largest of ${all})` : ""))));
    for (const node of members) {
      const most = acts.most[acts.series.get(node.id)];
      body.push(h("tr", {}, h("th", { scope: "row" }, h("button", { class: "plain" + (view.pin === node.id ? " pinned" : ""), title: node.words, onclick: () => change({ pin: node.id }) }, cut(kept.labels[node.id] || (node.head === null ? node.label : `h${node.head} ${node.kind} ${node.within ?? node.label.replace("ch ", "")}`), 14))),
        tokens.map((_, i) => {
          let v = valueOf(node.id, p, i);
          if (minus !== null) v -= i < lengthOf(minus) ? valueOf(node.id, minus, i) : 0;
          const share = most ? v / most : 0;
          return h("td", { class: (share < -0.02 ? "minus" : "") + (i === at ? " here" : ""), css: { background: heat(share) }, title: `${node.words} at “${token(tokens[i])}”: ${signed(v)}` });
        })));
    }
  });
  return h("div", { class: "scroll" }, h("table", { class: "matrix" }, h("thead", {}, top), h("tbody", {}, body)));
}
function attentionPart() {
  const list = prompts.heads;
  if (!list.length) return h("section", {}, h("h3", {}, "Attention"), h("p", {}, "The circuit has no heads."));
  if (view.prompt >= prompts.attention.prompts) return h("section", {}, h("h3", {}, "Attention"), h("p", {}, `Attention is stored for the first ${prompts.attention.prompts} prompts only.`));
  const n = lengthOf(view.prompt), tokens = prompts.prompts[view.prompt].tokens, query = view.query < 0 ? position() : Math.min(view.query, n - 1);
  const maps = list.map(([layer, head], i) => h("figure", { class: i === view.head ? "chosen" : "" },
    h("figcaption", {}, h("button", { class: "link", onclick: () => change({ head: i }) }, `layer ${layer}, head ${head}`)),
    h("table", { class: "attention", role: "grid", "aria-label": `attention of head ${head}, layer ${layer}: rows attend, columns are attended to` }, tokens.map((t, q) => h("tr", { class: q === query ? "here" : "" }, h("th", { scope: "row" }, cut(token(t), 5)), tokens.map((u, k) => {
      const share = attentionOf(i, view.prompt, q, k);
      return k > q ? h("td", { class: "off" }) : h("td", { css: { background: heat(share) }, title: `“${token(t)}” (${q + 1}) to “${token(u)}” (${k + 1}): ${number(100 * share, 3)} %`, onclick: () => change({ head: i, query: q, key: k }) });
    }))))));
  return h("section", {}, h("h3", {}, "Attention of the circuit's heads: rows attend to columns; click a cell to see why"), h("div", { class: "maps" }, maps), why(query));
}
/** Why a head attends from a query to a key: contributions to the score by channel pair. */
function why(query) {
  const [layer, head] = prompts.heads[view.head], site = (kind) => `layers.${layer}.attn.${kind}`;
  const shares = Array.from({ length: query + 1 }, (_, k) => attentionOf(view.head, view.prompt, query, k));
  const key = view.key < 0 || view.key > query ? shares.indexOf(Math.max(...shares)) : view.key;
  const tokens = prompts.prompts[view.prompt].tokens, title = h("h4", {}, `Layer ${layer}, head ${head}: from “${token(tokens[query])}” (${query + 1}) to “${token(tokens[key])}” (${key + 1}), ${number(100 * shares[key], 3)} % of its attention`);
  const own = nodes.filter((node) => node.layer === layer && node.head === head && (node.kind === "q" || node.kind === "k"));
  if (!own.length) return h("div", {}, title, h("p", {}, "No query and no key of this head is in the circuit: nothing of the prompt moves its scores, and it attends to all earlier positions as it would without them."));
  const first = head * graph.d_head, scale = 1 / Math.sqrt(graph.d_head), by = [];
  let total = 0;
  for (let c = first; c < first + graph.d_head; c++) { const s = valueOf(`${site("q")}:${c}`, view.prompt, query) * valueOf(`${site("k")}:${c}`, view.prompt, key) * scale; total += s; if (s) by.push([c, s]); }
  const pairs = new Map();
  let explained = 0;
  const parts = (kind, c, at) => { const node = nodeById.get(`${site(kind)}:${c}`); if (!node) return []; const list = live(node.into, view.frame).map((e) => [e.source.words, e.weights[view.frame] * (valueOf(e.source.id, view.prompt, at) || 0)]); if (node.bias && node.bias.weights[view.frame] !== null) list.push(["its bias", node.bias.weights[view.frame]]); return list; };
  for (const [c] of by) for (const [a, x] of parts("q", c, query)) for (const [b, y] of parts("k", c, key)) { const s = x * y * scale, name = `${a} × ${b}`; pairs.set(name, (pairs.get(name) || 0) + s); explained += s; }
  const rows = [...pairs].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
  by.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  return h("div", {}, title, h("p", {}, `The score is ${signed(total)}: the sum over query and key channels. By what the query reads and what the key reads:`),
    h("table", { class: "list" }, h("thead", {}, h("tr", {}, h("th", {}, "query reads × key reads"), h("th", {}, "score"))), h("tbody", {}, rows.map(([name, s]) => h("tr", {}, h("td", {}, name), h("td", { class: "num" }, signed(s)))), h("tr", {}, h("td", {}, "all else (constants, ablated parts, rounding)"), h("td", { class: "num" }, signed(total - explained))))),
    h("p", { class: "dim" }, "By channel of the head: " + by.slice(0, 8).map(([c, s]) => `${c - first}: ${signed(s, 3)}`).join(", ")));
}
/** Edges that carried the answer on this prompt. */
function answerPart() {
  const p = view.prompt, one = prompts.prompts[p], last = lengthOf(p) - 1, parts = [];
  if (acts.removed) {
    const order = edges.map((e, i) => [e, removedOn(numberOf(i), p)]).filter(([e, v]) => v !== null && e.weights[0] !== null).sort((a, b) => a[1] - b[1]).slice(0, 12);
    parts.push(h("h3", {}, "Edges that carried the answer: the margin's change when an edge alone is removed, on this prompt"), edgeTable(order, "margin changes by"));
  } else parts.push(h("p", { class: "dim" }, "What the removal of each edge does on one prompt is not stored for circuits of so many edges."));
  const direct = edges.filter((e) => e.target.kind === "logits" && e.weights[0] !== null && e.source.block !== "input").map((e) => [e, (e.target.channel === one.answer ? 1 : e.target.channel === one.wrong ? -1 : 0) * e.weights[0] * (carried(e.source, p, last) || 0)]).filter(([, v]) => v).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 12);
  parts.push(h("h3", {}, `Into the logits: what each edge adds to “${token(one.answer)}” over “${token(one.wrong)}”`), edgeTable(direct, "adds"));
  return h("section", {}, parts);
}
const owned = edges.map((e, i) => [e, i]).filter(([e]) => e.weights[0] !== null).map(([, i]) => i);
const ownedAt = new Map(owned.map((i, place) => [i, place]));
const numberOf = (i) => ownedAt.get(i);
const edgeTable = (rows, title) => h("table", { class: "list" }, h("thead", {}, h("tr", {}, h("th", {}, "edge"), h("th", {}, "weight"), h("th", {}, title))), h("tbody", {}, rows.map(([e, v]) => h("tr", {}, h("td", {}, h("button", { class: "link", title: e.id, onclick: () => change({ pin: e.id, tab: "graph" }) }, `${e.source.words} → ${e.target.words}`)), h("td", { class: "num" }, signed(e.weights[0], 3)), h("td", { class: "num" }, signed(v, 3))))));
