// The focal plane: sections where they lie in the camera, coloured by what was measured there.
(() => {
  const select = byId("plane-exposure");
  const tiles = night.plane.map(([name, x, y, w, h]) => ({ name, x, y, w, h }));
  if (tiles.length < 2 || !tiles.some((t) => t.w > 0) || !night.exposures.length) { byId("plane").hidden = true; return; }

  // Dark to light for amounts (viridis), blue over white to vermilion for offsets, white to red for failures.
  const MAPS = {
    amount: [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]],
    offset: [[0, 90, 150], [120, 180, 215], [240, 240, 240], [240, 170, 110], [190, 70, 0]],
    failures: [[226, 240, 232], [250, 220, 150], [240, 150, 70], [200, 60, 20], [120, 10, 10]],
  };
  const colorAt = (map, share) => {
    const place = Math.max(0, Math.min(0.9999, share)) * (MAPS[map].length - 1), k = Math.floor(place);
    return MAPS[map][k].map((v, c) => Math.round(v + (MAPS[map][k + 1][c] - v) * (place - k)));
  };
  const css = (rgb) => `rgb(${rgb.join(",")})`;
  const light = ([r, g, b]) => 0.3 * r + 0.59 * g + 0.11 * b > 140;

  const zeroOf = new Map(mediansOf(points.zero).map((m) => [`${m.exposure} ${m.band}`, m.value]));
  const lost = points.fate.map((fate) => (FATES[fate] === "failed" || FATES[fate] === "stopped" ? 1 : 0));
  const kinds = [
    { name: "Seeing", unit: "arcsec", map: "amount", digits: 2, of: (i) => points.seeing[i] },
    { name: "Zero point offset", unit: "mag, in its exposure", map: "offset", digits: 3, symmetric: true,
      of: (i) => (points.zero[i] === null ? null : points.zero[i] - zeroOf.get(`${points.exposure[i]} ${points.band[i]}`)) },
    { name: "Depth", unit: "mag, 5σ", map: "amount", digits: 2, of: (i) => points.depth[i] },
    { name: "Stopped or failed", unit: "sections", map: "failures", digits: 0, sum: true, of: (i) => lost[i] },
  ];

  // A section's value: of one exposure, or the median (the sum of failures) over the night.
  function valuesOf(kind, exposure) {
    const groups = tiles.map(() => []);
    points.section.forEach((s, i) => {
      if (counted[i] && (exposure === null || points.exposure[i] === exposure)) groups[s].push(kind.of(i));
    });
    return groups.map((group) => (kind.sum ? (group.length ? group.reduce((a, b) => a + b, 0) : null) : median(group)));
  }

  function limits(kind, values) {
    const there = known(values);
    if (!there.length) return [0, 1];
    if (kind.sum) return [0, Math.max(1, ...there)];
    const [low, high] = [Math.min(...there), Math.max(...there)];
    const far = Math.max(Math.abs(low), Math.abs(high), 0.01);
    return kind.symmetric ? [-far, far] : high - low < 0.02 ? [low - 0.01, high + 0.01] : [low, high];
  }

  function draw(holder, kind, exposure) {
    const values = valuesOf(kind, exposure), [low, high] = limits(kind, values);
    const ends = (f, g) => f(...tiles.map(g));
    const [x0, x1] = [ends(Math.min, (t) => t.x - t.w / 2), ends(Math.max, (t) => t.x + t.w / 2)];
    const [y0, y1] = [ends(Math.min, (t) => t.y - t.h / 2), ends(Math.max, (t) => t.y + t.h / 2)];
    const width = Math.max(holder.clientWidth, 120), per = Math.min(width / (x1 - x0), 270 / (y1 - y0));
    const height = (y1 - y0) * per, shift = (width - (x1 - x0) * per) / 2;
    const svg = make("svg", { viewBox: `0 0 ${width} ${height + 30}`, height: height + 30, role: "img", "aria-label": `${kind.name} over the focal plane` });
    const named = tiles.every((t) => t.w * per > 6.5 * t.name.length + 5);
    tiles.forEach((t, k) => {
      const value = values[k];
      const rgb = value === null ? null : colorAt(kind.map, (value - low) / (high - low));
      const [w, h] = [Math.max(t.w * per - 1, 1), Math.max(t.h * per - 1, 1)];
      const [x, y] = [shift + (t.x - t.w / 2 - x0) * per, (y1 - t.y - t.h / 2) * per];
      const box = make("rect", { x, y, width: w, height: h, rx: 1.5, class: rgb ? null : "empty", fill: rgb && css(rgb) });
      const words = `section ${t.name}\n${value === null ? "not measured" : `${value.toFixed(kind.digits)} ${kind.unit}`}`;
      box.addEventListener("pointermove", (event) => tell(words, event));
      box.addEventListener("pointerleave", untell);
      svg.append(box);
      const lines = [named ? t.name : "", w > 40 && value !== null ? value.toFixed(kind.digits) : ""].filter(Boolean);
      if (h < 13 * lines.length) lines.length = Math.max(0, Math.floor(h / 13));
      lines.forEach((line, n) => {
        const text = make("text", { class: "tile-text", x: x + w / 2, y: y + h / 2 + 4 + (n - (lines.length - 1) / 2) * 13, "text-anchor": "middle" }, line);
        text.style.fill = rgb ? (light(rgb) ? "#111" : "#fff") : "var(--soft)";
        svg.append(text);
      });
    });
    const id = `scale-${kinds.indexOf(kind)}`;
    const stops = MAPS[kind.map].map((rgb, n, all) => make("stop", { offset: n / (all.length - 1), "stop-color": css(rgb) }));
    svg.append(make("defs", {}, make("linearGradient", { id }, ...stops)),
      make("rect", { x: 0, y: height + 8, width, height: 7, rx: 2, fill: `url(#${id})` }),
      make("text", { x: 0, y: height + 28 }, low.toFixed(kind.digits)),
      make("text", { x: width, y: height + 28, "text-anchor": "end" }, high.toFixed(kind.digits)));
    fill(holder, svg);
  }

  fill(select, make("option", { value: "" }, "the whole night (medians)"),
    ...night.exposures.map((e, k) => make("option", { value: k }, `${clock(e.mjd)} ${e.filter} ${e.name}`)));
  const chosen = () => (select.value === "" ? null : Number(select.value));
  fill(byId("maps"), ...kinds.map((kind) => {
    const holder = make("div");
    drawings.push(() => draw(holder, kind, chosen()));
    return make("div", { class: "card" }, make("h3", {}, `${kind.name} `, make("small", {}, kind.unit)), holder);
  }));
  select.addEventListener("change", () => drawings.forEach((drawing) => drawing()));
})();
