// Figures over the night: a point for each section, medians of exposures, colour by filter.
const FIGURES = [
  { key: "seeing", name: "Seeing", unit: "arcsec FWHM", digits: 2, least: 0.1 },
  { key: "sky", name: "Sky", unit: "mag/arcsec²", digits: 2, least: 0.1 },
  { key: "zero", name: "Zero point", unit: "mag, 1 e⁻/s", digits: 3, least: 0.05 },
  { key: "depth", name: "Depth", unit: "mag, 5σ", digits: 2, least: 0.1 },
  { key: "detections", name: "Detections in the difference", unit: "per section", digits: 0, least: 4 },
  { key: "seconds", name: "Processing", unit: "s per section", digits: 1, least: 1 },
];

// Medians of a figure, one row for each exposure and filter: index, filter, value.
function mediansOf(values) {
  const groups = new Map();
  values.forEach((value, i) => {
    if (value === null || !counted[i]) return;
    const key = `${points.exposure[i]} ${points.band[i]}`;
    if (!groups.has(key)) groups.set(key, { exposure: points.exposure[i], band: points.band[i], values: [] });
    groups.get(key).values.push(value);
  });
  return [...groups.values()].map((g) => ({ ...g, value: median(g.values) }))
    .sort((a, b) => night.exposures[a.exposure].mjd - night.exposures[b.exposure].mjd);
}

function drawTrend(holder, figure) {
  const values = points[figure.key];
  const there = values.map((v, i) => (v !== null && counted[i] ? i : -1)).filter((i) => i >= 0);
  const width = Math.max(holder.clientWidth, 240), height = 190, left = 44, right = 6, top = 8, bottom = 22;
  if (!there.length) return fill(holder, make("p", { class: "hint" }, "Nothing was measured."));
  const times = night.exposures.map((e) => e.mjd);
  let [first, last] = [Math.min(...times), Math.max(...times)];
  const pad = Math.max((last - first) * 0.03, 2 / 1440);
  [first, last] = [first - pad, last + pad];
  const gap = Math.min(...times.slice(1).map((t, i) => t - times[i]).filter((d) => d > 0), pad * 2);
  const n = Math.max(night.plane.length, 1);
  const x = scale(first, last, left, width - right);
  const [low, high] = range(there.map((i) => values[i]), figure.least);
  const y = scale(low, high, height - bottom, top);
  // Sections of an exposure stand beside each other, in the order of the camera.
  const at = (i) => [x(times[points.exposure[i]] + gap * 0.5 * ((points.section[i] + 0.5) / n - 0.5)),
    Math.max(top, Math.min(height - bottom, y(values[i])))];
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${figure.name} over the night` });
  const round = ticks(low, high, 4);
  for (const v of round.values) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }),
      make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(round.digits)));
  }
  for (const t of clockTicks(first, last, Math.floor((width - left) / 62))) {
    svg.append(make("line", { class: "grid", x1: x(t), x2: x(t), y1: height - bottom, y2: height - bottom + 4 }),
      make("text", { x: x(t), y: height - 5, "text-anchor": "middle" }, clock(t)));
  }
  const medians = mediansOf(values);
  night.bands.forEach((band, k) => {
    const dots = there.filter((i) => points.band[i] === k).map((i) => at(i).map((v) => v.toFixed(1)).join(" "));
    if (!dots.length) return;
    svg.append(make("path", { class: there.length > 600 ? "dots many" : "dots", color: band.color, d: dots.map((d) => `M${d}h0`).join("") }));
    const knots = medians.filter((m) => m.band === k).map((m) => [x(times[m.exposure]), Math.max(top, Math.min(height - bottom, y(m.value)))]);
    svg.append(make("polyline", { class: "medians", color: band.color, points: knots.map((p) => p.map((v) => v.toFixed(1)).join(",")).join(" ") }),
      ...(knots.length <= 150 ? knots.map(([cx, cy]) => make("circle", { class: "knot", color: band.color, cx, cy, r: 3.2 })) : []));
  });
  const ring = make("circle", { class: "ring", r: 5, visibility: "hidden" });
  svg.append(ring);
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const [px, py] = [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
    let best = null, least = 900;
    for (const i of there) {
      const [cx, cy] = at(i), d = (cx - px) ** 2 + (cy - py) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    if (best === null) { untell(); ring.setAttribute("visibility", "hidden"); return; }
    const [cx, cy] = at(best), e = night.exposures[points.exposure[best]];
    for (const [name, value] of [["cx", cx], ["cy", cy], ["visibility", "visible"]]) ring.setAttribute(name, value);
    tell(`${e.name}  section ${night.plane[points.section[best]][0]}\n${clock(e.mjd)} UTC  ${night.bands[points.band[best]].name}\n`
      + `${figure.name} ${values[best].toFixed(figure.digits)} ${figure.unit}`, event);
  });
  svg.addEventListener("pointerleave", () => { untell(); ring.setAttribute("visibility", "hidden"); });
  return fill(holder, svg);
}

if (night.bands.length > 1) fill(byId("legend"), ...night.bands.map((band) => make("span", { class: "key", color: band.color }, make("i"), band.name || "none")));
if (night.exposures.length) fill(byId("charts"), ...FIGURES.map((figure) => {
  const holder = make("div");
  drawings.push(() => drawTrend(holder, figure));
  return make("div", { class: "card" }, make("h3", {}, `${figure.name} `, make("small", {}, figure.unit)), holder);
}));
else byId("trends").hidden = true;
