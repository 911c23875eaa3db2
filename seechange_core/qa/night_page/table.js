// The candidates: sorted by any column, chosen by kind and words. The address says how: #sort=mag&kind=new&open=NAME.
night.candidates.forEach((row, k) => { row.rank = k + 1; });
// Columns of the table, and what each can be sorted by.
const COLUMNS = [
  { number: true, by: [{ key: "rank", name: "Best" }] },
  { name: "New · reference · difference", by: [] },
  { by: [{ key: "object", name: "Object" }, { key: "kind", name: "Kind" }] },
  { number: true, by: [{ key: "mag", name: "mag" }] },
  { number: true, by: [{ key: "score", name: "Score", down: true, of: (row) => Math.abs(row.score) }] },
  { number: true, by: [{ key: "seen", name: "Seen", down: true }, { key: "hours", name: "over", down: true }] },
  { by: [{ key: "ra", name: "RA" }, { key: "dec", name: "Dec" }, { key: "exposure", name: "Exposure" }] },
  { by: [{ key: "note", name: "What else is known" }] },
  { name: "Light curve", by: [] },
];
const ORDERS = COLUMNS.flatMap((column) => column.by);
const choice = { sort: "rank", down: false, kind: "", words: "", seldom: true, bogus: false };
const large = byId("large");
let shown = [];

function sortedRows() {
  const order = ORDERS.find((o) => o.key === choice.sort) || ORDERS[0];
  const of = order.of || ((row) => row[order.key]);
  const sign = choice.down ? -1 : 1;
  // What has no value comes last either way.
  return [...night.candidates].sort((a, b) => {
    const [p, q] = [of(a), of(b)];
    if (p === null || q === null) return (p === null) - (q === null) || a.rank - b.rank;
    return sign * (p < q ? -1 : p > q ? 1 : 0) || a.rank - b.rank;
  });
}

function isWanted(row) {
  const words = choice.words.toLowerCase();
  return (!choice.kind || row.kind === choice.kind) && (choice.seldom || row.confirmed) && (choice.bogus || row.verdict !== "bogus")
    && (!words || `${row.object} ${row.note} ${row.exposure} ${row.kind} ${row.verdict}`.toLowerCase().includes(words));
}

const brightness = (row) => `${row.filter} ${row.score < 0 ? "−" : ""}${row.mag === null ? "?" : row.mag.toFixed(2)}`;
const seenIn = (row) => (row.possible > row.seen ? `${row.seen} of ${row.possible}` : String(row.seen));
const over = (row) => (row.seen > 1 ? minutes(row.hours * 60) : "–");

function rowOf(row) {
  const cell = (kind, label, ...children) => make("td", { class: kind, "data-label": label }, ...children);
  const picture = row.picture ? make("img", { src: `data:image/png;base64,${row.picture}`, alt: "new, reference, difference", loading: "lazy" })
    : make("span", { class: "note" }, "its stamps are gone: process it again");
  return make("tr", { class: `row${row.confirmed ? "" : " seldom"}`, tabindex: 0, "data-object": row.object,
    onclick: () => openLarge(row), onkeydown: (event) => { if (event.key === "Enter") openLarge(row); } },
    cell("number rank", "#", String(row.rank)), cell("picture", null, picture),
    cell("name", null, make("b", {}, row.object), make("span", { class: "kind" }, row.kind), verdictOf(row)),
    cell("number span", null, brightness(row)), cell("number", "score", show(row.score, 1)),
    cell("number span", "seen", seenIn(row), make("br"), make("span", { class: "hint" }, row.seen > 1 ? over(row) : "")),
    cell("where", null, `${row.ra.toFixed(5)} ${row.dec >= 0 ? "+" : "−"}${Math.abs(row.dec).toFixed(5)}`, make("br"),
      make("span", {}, `${row.exposure} ${row.section}`)),
    cell("note words", null, row.note), cell("curve", null, drawCurve(row.curve, 170, 70, false)));
}

function verdictOf(row) {
  if (row.verdict) return make("span", { class: `kind ${row.verdict === "bogus" ? "failed" : "done"}` }, ` called ${row.verdict}`);
  return row.confirmed ? null : make("span", { class: "hint" }, " seen too seldom");
}

const body = make("tbody");
const buttons = ORDERS.map((order) => make("button", { type: "button", "data-sort": order.key, onclick: () => sortBy(order) }, order.name));
const heads = COLUMNS.map((column) => make("th", { class: column.number ? "number" : null, scope: "col" },
  ...(column.by.length ? column.by.map((order) => buttons[ORDERS.indexOf(order)]) : [column.name])));
const rows = new Map();

function sortBy(order, down) {
  const same = choice.sort === order.key;
  choice.down = down !== undefined ? down : same ? !choice.down : Boolean(order.down);
  choice.sort = order.key;
  redraw();
}

function redraw() {
  shown = sortedRows().filter(isWanted);
  for (const row of shown) if (!rows.has(row)) rows.set(row, rowOf(row));
  fill(body, ...shown.map((row) => rows.get(row)));
  const way = choice.down ? "down" : "up";
  ORDERS.forEach((order, k) => { if (order.key === choice.sort) buttons[k].dataset.way = way; else delete buttons[k].dataset.way; });
  COLUMNS.forEach((column, k) => {
    if (column.by.some((order) => order.key === choice.sort)) heads[k].setAttribute("aria-sort", choice.down ? "descending" : "ascending");
    else heads[k].removeAttribute("aria-sort");
  });
  for (const button of document.querySelectorAll("#tools [data-kind]")) button.setAttribute("aria-pressed", button.dataset.kind === choice.kind);
  byId("tally").textContent = `${shown.length} shown`;
}

function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1));
  const order = ORDERS.find((o) => o.key === asked.get("sort"));
  if (asked.has("kind")) choice.kind = asked.get("kind");
  if (order) sortBy(order, asked.get("down") === "1");
  else if (asked.has("kind")) redraw();
  const row = night.candidates.find((c) => c.object === asked.get("open"));
  if (row) openLarge(row);
}

(() => {
  const [all, unconfirmed, bogus] = night.counts;
  const there = night.candidates.length, every = all + unconfirmed + bogus;
  byId("candidate-words").textContent = !every ? "No candidates." : `${plural(all, "candidate")}, ${unconfirmed} more seen in too few exposures, ${bogus} called bogus.`
    + `${there < every ? ` Here are ${there}, the best of each; seechange candidates lists all.` : ""} Click one to see it large.`;
  if (!there) return;
  const kinds = [...new Set(night.candidates.map((row) => row.kind))];
  const chip = (kind, words) => make("button", { type: "button", "data-kind": kind, onclick: () => { choice.kind = kind; redraw(); } }, words);
  const tick = (key, words) => make("label", {}, make("input", { type: "checkbox", checked: choice[key], onchange: (event) => { choice[key] = event.target.checked; redraw(); } }), ` ${words}`);
  fill(byId("tools"), chip("", "all kinds"), ...kinds.map((kind) => chip(kind, `${kind} ${night.candidates.filter((row) => row.kind === kind).length}`)),
    unconfirmed ? tick("seldom", "seen too seldom") : null, bogus ? tick("bogus", "called bogus") : null,
    make("input", { type: "search", placeholder: "name, note, exposure", "aria-label": "search", oninput: (event) => { choice.words = event.target.value; redraw(); } }),
    make("select", { class: "sort", "aria-label": "sort by", onchange: (event) => { const order = ORDERS[event.target.value]; sortBy(order, Boolean(order.down)); } },
      ...ORDERS.map((order, k) => make("option", { value: k }, `by ${order.name}`))),
    make("span", { class: "hint", id: "tally" }));
  fill(byId("table"), make("div", { class: "card scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...heads)), body)));
})();
