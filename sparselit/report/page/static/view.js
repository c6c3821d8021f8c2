// What is looked at: one object, kept in the link's fragment; labels and notes are kept there and in the file.
const view = {
  tab: "graph", pin: "", frame: circuits.length - 1, weight: 0, loss: 0, sign: "all", find: "", hidden: new Set(),
  folded: new Set(), prompt: 0, at: -1, overlay: false, query: -1, key: -1, head: 0, row: -1, theme: "", zoom: null,
};
if (data.kind === "compare") view.frame = 0;
const kept = { labels: {}, notes: {} };
const listeners = [];
/** Change the view; everything that listens draws again, and the fragment follows. */
function change(values) {
  Object.assign(view, values);
  for (const listener of listeners) listener(values);
  remember();
}
const coded = (text) => btoa(String.fromCharCode(...new TextEncoder().encode(text))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
const decoded = (text) => new TextDecoder().decode(Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0)));
function fragment() {
  const parts = new URLSearchParams();
  const say = (name, value, usual) => { if (String(value) !== String(usual)) parts.set(name, value); };
  say("tab", view.tab, "graph"); say("pin", view.pin, ""); say("frame", view.frame, data.kind === "compare" ? 0 : circuits.length - 1);
  say("weight", view.weight, 0); say("loss", view.loss, 0); say("sign", view.sign, "all"); say("find", view.find, "");
  say("hidden", [...view.hidden].join(","), ""); say("folded", [...view.folded].join(","), "");
  say("prompt", view.prompt, 0); say("at", view.at, -1); say("overlay", view.overlay ? 1 : 0, 0);
  say("query", view.query, -1); say("key", view.key, -1); say("head", view.head, 0); say("row", view.row, -1); say("theme", view.theme, "");
  if (view.zoom) parts.set("zoom", view.zoom.map((x) => Number(x.toFixed(3))).join(","));
  if (Object.keys(kept.labels).length || Object.keys(kept.notes).length) parts.set("kept", coded(JSON.stringify(kept)));
  return parts.toString();
}
let timer = 0;
function remember() {
  clearTimeout(timer);
  timer = setTimeout(() => { try { history.replaceState(null, "", "#" + fragment()); } catch { /* a frame without an address */ } }, 60);
}
const TABS = ["graph", "prompt", "evidence", "table"];
/** Read the fragment; what is unknown or out of range is left as it was. */
function recall() {
  const own = (object) => { for (const kind of ["labels", "notes"]) for (const [id, text] of Object.entries((object && object[kind]) || {})) if (typeof text === "string" && text) kept[kind][id] = text; };
  try { own(JSON.parse(document.getElementById("kept").textContent)); } catch { /* a file without notes */ }
  const parts = new URLSearchParams(location.hash.slice(1));
  const whole = (name, least, most) => { const x = Number(parts.get(name)); if (parts.has(name) && Number.isInteger(x) && x >= least && x <= most) view[name] = x; };
  const share = (name) => { const x = Number(parts.get(name)); if (parts.has(name) && x >= 0 && x <= 1) view[name] = x; };
  if (TABS.includes(parts.get("tab"))) view.tab = parts.get("tab");
  if (nodeById.has(parts.get("pin")) || edgeById.has(parts.get("pin"))) view.pin = parts.get("pin");
  whole("frame", 0, circuits.length - 1); share("weight"); share("loss");
  if (["all", "positive", "negative"].includes(parts.get("sign"))) view.sign = parts.get("sign");
  if (parts.get("find")) view.find = parts.get("find").slice(0, 200);
  for (const name of ["hidden", "folded"]) view[name] = new Set((parts.get(name) || "").split(",").filter((part) => /^[LH][\d.]+$/.test(part)));
  if (["light", "dark"].includes(parts.get("theme"))) view.theme = parts.get("theme");
  if (prompts) {
    whole("prompt", 0, prompts.prompts.length - 1); whole("at", -1, 1e6); whole("query", -1, 1e6); whole("key", -1, 1e6); whole("row", -1, graph.rows.length - 1);
    whole("head", 0, Math.max(0, prompts.heads.length - 1)); view.overlay = parts.get("overlay") === "1";
  }
  const zoom = (parts.get("zoom") || "").split(",").map(Number);
  if (zoom.length === 3 && zoom.every(Number.isFinite) && zoom[2] > 0) view.zoom = zoom;
  try { if (parts.get("kept")) own(JSON.parse(decoded(parts.get("kept")))); } catch { /* a broken link */ }
}
const lengthOf = (p) => prompts.prompts[p].tokens.length;
/** The position that is looked at; the answer's where none was chosen. */
const position = () => (view.at < 0 ? lengthOf(view.prompt) - 1 : Math.min(view.at, lengthOf(view.prompt) - 1));
const called = (thing) => kept.labels[thing.id] || (thing.caption && thing.head === null ? thing.label : thing.label);

/** The whole file again, with the labels and notes in it. */
function fileText() {
  const copy = document.documentElement.cloneNode(true);
  copy.removeAttribute("data-theme");
  copy.querySelector("#app").replaceWith(untouched.cloneNode(true));
  const text = JSON.stringify(kept).replace(/[<>&\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
  copy.querySelector("#kept").textContent = text;
  return "<!DOCTYPE html>\n" + copy.outerHTML + "\n";
}
function download(name, blob) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link); link.click(); link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
