// The evidence in words, and nodes and edges as tables.
const BADGES = { holds: "✓ holds", fails: "✗ fails", "": "measured" };
function evidenceOf(one) {
  const sections = new Map();
  for (const row of one.evidence.rows) (sections.get(row.section) || sections.set(row.section, []).get(row.section)).push(row);
  return h("div", { class: "evidence" }, circuits.length > 1 ? h("h2", {}, one.name) : null,
    h("p", {}, `${one.title}. Criterion: ${one.criterion.join(", ")}; ${one.ablation} ablation; ${one.model}; found by ${one.search}.`),
    [...sections].map(([title, rows]) => h("section", {}, h("h3", {}, title), h("table", { class: "list" }, h("thead", {}, h("tr", {}, ["claim", "value", "95 % interval", "n", "verdict"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, h("td", {}, row.claim), h("td", {}, row.value), h("td", {}, row.interval || "–"), h("td", {}, row.n || "–"), h("td", {}, h("span", { class: "badge " + row.verdict }, BADGES[row.verdict])))))))),
    h("section", {}, h("h3", {}, "What is not shown"), h("ul", {}, one.evidence.unshown.map((text) => h("li", {}, text)))),
    h("p", { class: "dim" }, `weights ${one.hash}`));
}
const evidenceTab = () => [h("p", { class: "dim" }, "“holds” and “fails” stand only where a number was compared with a bound; all else is a measurement."), h("div", { class: circuits.length === 2 ? "pair" : "" }, (circuits.length === 2 ? circuits : [circuits[view.frame]]).map(evidenceOf))];
let sorted = { table: "edges", by: 3, down: true }, more = 200;
function tableTab() {
  const f = view.frame;
  const columns = sorted.table === "edges" ? ["edge", "from", "to", "weight", graph.metrics[f].replace("_", " ") + " without it"] : ["node", "in words", "edges in", "edges out", "bias"];
  const rows = sorted.table === "edges" ? edges.filter((e) => e.weights[f] !== null).map((e) => [e.id, e.source.words, e.target.words, e.weights[f], e.losses[f]])
    : nodes.filter((n) => nodeIn(n, f)).map((n) => [n.id, kept.labels[n.id] || n.words, live(n.into, f).length, live(n.out, f).length, n.bias && n.bias.weights[f]]);
  const wanted = view.find.toLowerCase(), found = wanted ? rows.filter((row) => row.slice(0, 3).join(" ").toLowerCase().includes(wanted)) : rows;
  const key = (row) => { const v = row[sorted.by]; return typeof v === "number" ? Math.abs(v) : v === null ? -1 : v; };
  found.sort((a, b) => { const x = key(a), y = key(b); return (x < y ? -1 : x > y ? 1 : 0) * (sorted.down ? -1 : 1); });
  const again = (values) => { Object.assign(sorted, values); change({}); };
  return [h("div", { class: "bar" }, ["edges", "nodes"].map((name) => h("button", { "aria-pressed": String(sorted.table === name), onclick: () => again({ table: name, by: name === "edges" ? 3 : 2, down: true }) }, name)), h("span", { class: "dim" }, `${found.length} of ${rows.length}`)),
    h("table", { class: "list", id: "rows" }, h("thead", {}, h("tr", {}, columns.map((name, i) => h("th", { scope: "col", "aria-sort": sorted.by === i ? (sorted.down ? "descending" : "ascending") : "none" }, h("button", { class: "plain", onclick: () => again({ by: i, down: sorted.by === i ? !sorted.down : typeof (rows[0] || [])[i] === "number" }) }, name + (sorted.by === i ? (sorted.down ? " ▾" : " ▴") : "")))))),
      h("tbody", {}, found.slice(0, more).map((row) => h("tr", {}, row.map((v, i) => h("td", { class: typeof v === "number" ? "num" : "" }, i === 0 ? h("button", { class: "link", onclick: () => change({ pin: v, tab: "graph" }) }, v) : typeof v === "number" || v === null ? number(v) : v)))))),
    found.length > more ? h("button", { onclick: () => { more += 1000; change({}); } }, "show more") : null];
}
