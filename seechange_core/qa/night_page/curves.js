// Light curves. In magnitudes, with 5 sigma limits where it was below 3 sigma; in flux of what has faded.
const DETECTED = 3, LIMIT = 5, ZERO = 23.9;
const nightStart = night.exposures.length ? Math.min(...night.exposures.map((e) => e.mjd)) - 0.02 : 0;
const nightEnd = night.exposures.length ? Math.max(...night.exposures.map((e) => e.mjd)) + 0.02 : 0;

function curvePoints(curve) {
  const inFlux = curve.some(([, f, e]) => f < -DETECTED * e) || !curve.some(([, f, e]) => f >= DETECTED * e);
  const rows = curve.map(([t, f, e, band]) => {
    if (inFlux) return { t, band, value: f, high: f + e, low: f - e };
    if (f < DETECTED * e) return { t, band, value: ZERO - 2.5 * Math.log10(LIMIT * e), limit: true };
    return { t, band, value: ZERO - 2.5 * Math.log10(f), high: ZERO - 2.5 * Math.log10(f + e), low: ZERO - 2.5 * Math.log10(Math.max(f - e, f / 100)) };
  });
  return { inFlux, rows: rows.filter((row) => isFinite(row.value)) };
}

// Draw one into a box: small, without words, or large, with axes.
function drawCurve(curve, width, height, large) {
  const { inFlux, rows } = curvePoints(curve);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `light curve of ${rows.length} points` });
  if (large) svg.setAttribute("height", height);
  if (!rows.length) return svg;
  const [left, right, top, bottom] = large ? [50, 10, 18, 34] : [4, 4, 4, 4];
  const times = rows.map((r) => r.t);
  let [first, last] = [Math.min(...times), Math.max(...times)];
  const pad = Math.max(0.04 * (last - first), 0.01);
  [first, last] = [first - pad, last + pad];
  const x = scale(first, last, left, width - right);
  const ends = rows.flatMap((r) => (r.limit ? [r.value] : [r.value, r.high, r.low]));
  let [low, high] = [Math.min(...ends), Math.max(...ends)];
  // What is far fainter than everything else would only squeeze it together.
  if (!inFlux) high = Math.min(high, Math.max(...rows.map((r) => r.value)) + 0.7);
  const room = Math.max(0.08 * (high - low), inFlux ? 0 : 0.05, 1e-9);
  const y = inFlux ? scale(low - room, high + room, height - bottom, top) : scale(low - room, high + room, top, height - bottom);
  const inside = (v) => Math.max(top, Math.min(height - bottom, v));
  const [from, to] = [Math.max(x(nightStart), left), Math.min(x(nightEnd), width - right)];
  if (to > from && to - from < 0.9 * (width - left - right)) svg.append(make("rect", { class: "tonight", x: from, y: top - (large ? 4 : 2), width: Math.max(to - from, 2), height: height - top - bottom + (large ? 8 : 4) }));
  if (large) {
    const round = ticks(low - room, high + room, 5);
    for (const v of round.values) svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(v), y2: y(v) }), make("text", { x: left - 6, y: y(v) + 4, "text-anchor": "end" }, v.toFixed(round.digits)));
    const span = last - first;
    const days = span > 0.9 ? ticks(first, last, Math.floor(width / 110)) : { values: clockTicks(first, last, Math.floor(width / 80)) };
    for (const t of days.values) svg.append(make("line", { class: "axis", x1: x(t), x2: x(t), y1: height - bottom, y2: height - bottom + 4 }),
      make("text", { x: x(t), y: height - bottom + 16, "text-anchor": "middle" }, span > 0.9 ? t.toFixed(days.digits) : clock(t)));
    svg.append(make("text", { x: (left + width) / 2, y: height - 3, "text-anchor": "middle" }, span > 0.9 ? "MJD" : `UTC, ${moment(first).slice(0, 10)}`),
      make("text", { x: left, y: 10 }, inFlux ? "change of flux (zero point 23.9: µJy if AB)" : "magnitude of the change"));
  }
  if (inFlux && low < 0 && high > 0) svg.append(make("line", { class: "zero", x1: left, x2: width - right, y1: y(0), y2: y(0) }));
  const size = large ? 4 : 2.4;
  for (const row of rows) {
    const color = bandColor(row.band), cx = x(row.t), cy = inside(y(row.value));
    let mark;
    if (row.limit) mark = make("path", { class: "limit", color, d: `M${cx - size} ${cy - size * 0.6}h${2 * size}L${cx} ${cy + size}z` });
    else {
      svg.append(make("line", { class: "whisker", color, x1: cx, x2: cx, y1: inside(y(row.high)), y2: inside(y(row.low)) }));
      mark = make("circle", { class: "point", color, cx, cy, r: size });
    }
    if (large) {
      const words = `${moment(row.t)} UTC  ${night.bands[row.band].name}\n${row.limit ? `fainter than ${row.value.toFixed(2)} (5σ)` : inFlux
        ? `${row.value.toPrecision(3)} ± ${(row.high - row.value).toPrecision(2)}` : `${row.value.toFixed(2)} +${(row.low - row.value).toFixed(2)} −${(row.value - row.high).toFixed(2)} mag`}`;
      mark.addEventListener("pointermove", (event) => tell(words, event));
      mark.addEventListener("pointerleave", untell);
    }
    svg.append(mark);
  }
  return svg;
}
