// One candidate, large: stamps, light curve, facts, and a person's word on it.
const servedHere = location.protocol === "http:" || location.protocol === "https:";
const quoted = (words) => (/^[\w@%+=:,./-]+$/.test(words) ? words : `'${words.replaceAll("'", "'\\''")}'`);
let open = null;

function stampsOf(row) {
  if (!row.picture) return make("p", { class: "hint" }, "Its stamps are gone: process it again.");
  const image = make("img", { src: `data:image/png;base64,${row.picture}`, alt: "new, reference, difference" });
  const over = make("svg", {});
  image.addEventListener("load", () => {
    // In pixels of the window: words stay as large as others, however large the stamps are.
    const [w, h] = [image.clientWidth, image.clientHeight], gap = (w - 3 * h) / 2, arm = Math.max(14, h * 0.09);
    over.setAttribute("viewBox", `0 0 ${w} ${h}`);
    ["new", "reference", "difference"].forEach((name, k) => over.append(make("text", { x: k * (h + gap) + 6, y: 17 }, name)));
    const m = h / 2;
    over.append(make("line", { class: "cross", x1: m + 0.1 * h, x2: m + 0.2 * h, y1: m, y2: m }), make("line", { class: "cross", x1: m, x2: m, y1: m - 0.1 * h, y2: m - 0.2 * h }));
    const from = [h - 22, h - 22];
    for (const [name, [x, y]] of [["N", row.north], ["E", row.east]]) {
      over.append(make("line", { x1: from[0], y1: from[1], x2: from[0] + x * arm, y2: from[1] - y * arm }),
        make("text", { x: from[0] + x * (arm + 9), y: from[1] - y * (arm + 9) + 4, "text-anchor": "middle" }, name));
    }
    if (row.side) {
      const length = [1, 2, 3, 5, 10, 15, 20, 30, 60, 120, 300].filter((v) => v <= 0.4 * row.side).pop() || 1;
      const bar = h * length / row.side, end = w - 10;
      over.append(make("line", { x1: end - bar, x2: end, y1: h - 10, y2: h - 10 }), make("text", { x: end, y: h - 15, "text-anchor": "end" }, `${length}″`));
    }
  });
  return make("div", { class: "stamps" }, image, over);
}

function factsOf(row) {
  const error = row.err === null ? "" : ` ± ${row.err.toFixed(2)}`;
  const facts = [
    ["Kind", `${row.kind}${row.confirmed ? "" : ", seen too seldom to count"}`], ["Brightness", `${brightness(row)}${row.mag === null ? "" : error}`],
    ["Score", `${row.score.toFixed(1)} σ`], ["Seen in", `${seenIn(row)} exposures${row.seen > 1 ? ` over ${over(row)}` : ""}`],
    ["Position", row.place], ["Degrees", `${row.ra.toFixed(6)} ${row.dec.toFixed(6)}`],
    ["Best in", `${row.exposure}, section ${row.section}, ${moment(row.mjd)} UTC`], ["Known", row.note || "nothing else"],
    ["Verdict", row.verdict ? `called ${row.verdict}` : "nobody has said anything"],
  ];
  const at = `${row.ra.toFixed(6)} ${row.dec >= 0 ? "+" : ""}${row.dec.toFixed(6)}`;
  const links = [
    ["Aladin Lite", `https://aladin.cds.unistra.fr/AladinLite/?target=${encodeURIComponent(at)}&fov=0.05`],
    ["SIMBAD", `https://simbad.cds.unistra.fr/simbad/sim-coo?Coord=${encodeURIComponent(at)}&Radius=10&Radius.unit=arcsec`],
  ].map(([name, address]) => make("a", { href: address, target: "_blank", rel: "noopener noreferrer" }, name));
  return make("div", {}, make("dl", {}, ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("p", {}, links[0], "  ", links[1]));
}

function markOf(row) {
  const reason = make("input", { placeholder: "why?", "aria-label": "reason", maxlength: 500 });
  const by = make("input", { class: "by", placeholder: "your name", "aria-label": "your name", maxlength: 80 });
  try { by.value = localStorage.getItem("seechange-by") || ""; } catch { by.value = ""; }
  const answer = make("div", { "aria-live": "polite" });
  const offer = (word, why) => fill(answer, make("p", { class: "hint" }, why),
    make("code", {}, `seechange mark ${quoted(row.object)} --as ${word} --reason ${quoted(reason.value.trim())}${by.value.trim() ? ` --by ${quoted(by.value.trim())}` : ""}`));
  async function say(word) {
    if (!reason.value.trim()) { fill(answer, make("p", { class: "failed" }, "A verdict needs a reason: say why.")); reason.focus(); return; }
    try { localStorage.setItem("seechange-by", by.value.trim()); } catch { /* a page from disk may have no memory */ }
    if (!servedHere) { offer(word, "This page was opened from disk. To record it:"); return; }
    fill(answer, make("p", { class: "hint" }, "…"));
    try {
      const response = await fetch("/mark", { method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ object: row.object, word, reason: reason.value.trim(), by: by.value.trim() }) });
      const text = (await response.text()).trim();
      let words = text;
      try { const told = JSON.parse(text); words = told.message || told.error || ""; } catch { /* plain words */ }
      if (!response.ok) { offer(word, `It was not recorded (${response.status}${words && words.length < 300 ? `: ${words}` : ""}). By hand:`); return; }
      row.verdict = word === "undo" ? "" : word;
      fill(answer, make("p", { class: "done" }, words || (word === "undo" ? "Recorded: taken back." : `Recorded: ${row.object} is ${word}.`)));
      rows.set(row, rowOf(row));
      redraw();
    } catch (error) { offer(word, `It was not recorded (${error.message}). By hand:`); }
  }
  const button = (word) => make("button", { type: "button", class: word, onclick: () => say(word) }, word);
  return make("div", {}, make("div", { class: "mark" }, reason, by, button("real"), button("bogus"),
    row.verdict ? button("undo") : null), answer);
}

function openLarge(row) {
  open = row;
  const step = (by) => { const next = shown[shown.indexOf(open) + by]; if (next) openLarge(next); };
  const holder = make("div");
  fill(large, make("div", { class: "top" }, make("h2", {}, row.object),
    make("button", { type: "button", "aria-label": "previous", onclick: () => step(-1) }, "‹"),
    make("button", { type: "button", "aria-label": "next", onclick: () => step(1) }, "›"),
    make("button", { type: "button", onclick: () => large.close() }, "close")),
    stampsOf(row), make("div", { class: "two" }, holder, make("div", {}, factsOf(row), markOf(row))));
  large.onkeydown = (event) => {
    if (event.target.tagName === "INPUT") return;
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  };
  if (!large.open) large.showModal();
  large.scrollTop = 0;
  const width = Math.max(holder.clientWidth, 260);
  fill(holder, drawCurve(row.curve, width, Math.min(330, Math.max(220, width * 0.5)), true),
    make("p", { class: "hint" }, `Forced fluxes in the differences of all nights, against the reference; triangles are 5σ limits, this night is shaded. seechange lightcurve --object ${row.object}`));
}

large.addEventListener("click", (event) => { if (event.target === large) large.close(); });
large.addEventListener("close", untell);
addEventListener("hashchange", readAddress);
// Charts are as wide as there is room: drawn when they are laid out, and again when that changes.
let drawnWidth = 0;
new ResizeObserver(([entry]) => {
  const width = Math.round(entry.contentRect.width);
  if (width !== drawnWidth) { drawnWidth = width; drawings.forEach((drawing) => drawing()); }
}).observe(document.querySelector("main"));
if (night.candidates.length) { redraw(); readAddress(); }
