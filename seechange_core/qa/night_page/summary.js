// Headline figures.
(() => {
  const f = night.figures;
  const total = FATES.reduce((sum, fate) => sum + f[`sections_${fate}`], 0);
  byId("title").textContent = `${night.instrument}, night of ${night.night}`;
  const state = total === 0 ? "nothing was observed" : f.sections_unfinished
    ? `${f.sections_unfinished} of ${total} sections not finished yet` : "all sections finished";
  byId("subtitle").textContent = `As of ${night.made} UTC: ${state}.`;

  const tile = (value, unit, words, wide) => make("div", { class: `card tile${wide ? " wide" : ""}` },
    make("b", {}, value, unit ? make("small", {}, ` ${unit}`) : null), make("span", {}, words));
  const bar = make("div", { class: "bar", role: "img", "aria-label": "sections by outcome" });
  const words = make("span");
  for (const fate of FATES) {
    const n = f[`sections_${fate}`];
    if (!n) continue;
    const part = make("div", { title: `${n} ${fate}` });
    part.style.flexGrow = n;
    part.style.background = `var(--${fate})`;
    bar.append(part);
    words.append(make("span", { class: fate }, `${n.toLocaleString("en")} ${fate}`), " ");
  }
  const sections = make("div", { class: "card tile wide" },
    make("b", {}, total.toLocaleString("en"), make("small", {}, " sections")), bar, words);
  const bands = Object.entries(night.filters);
  const [, only] = bands.length === 1 ? bands[0] : [null, null];
  const bad = f.exposures_called_bad ? `, ${f.exposures_called_bad} called bad` : "";
  fill(byId("tiles"),
    sections,
    tile(f.exposures.toLocaleString("en"), "", `exposures${bands.length === 1 ? ` in ${bands[0][0]}` : ""}${bad}`),
    tile(show(f.seeing_arcsec), "arcsec", "median seeing (FWHM)"),
    only && tile(show(only.depth_mag), "mag", "median depth, 5σ"),
    only && tile(show(only.zero_point_mag), "mag", "median zero point, 1 e⁻/s"),
    only && tile(show(only.sky_mag), "mag", "median sky, an arcsec²"),
    tile(f.candidates.toLocaleString("en"), "", `candidates, and ${f.candidates_seen_too_seldom} seen too seldom to count`),
    f.delay_median_min === undefined ? null : tile(minutes(f.delay_median_min), "",
      `from ${night.delayFrom} to measurement; 90 % in ${minutes(f.delay_90_percent_min)}`),
    f.files_set_aside ? tile(f.files_set_aside, "", `file${f.files_set_aside === 1 ? "" : "s"} set aside`) : null);

  if (bands.length > 1) {
    const columns = [["exposures", "Exposures", 0], ["seeing_arcsec", "Seeing, arcsec", 2], ["sky_mag", "Sky, mag/arcsec²", 2],
      ["zero_point_mag", "Zero point, mag of 1 e⁻/s", 2], ["depth_mag", "Depth, mag at 5σ", 2]];
    fill(byId("filters"), make("div", { class: "card scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, make("th", {}, "Median of filter"),
        ...columns.map(([, name]) => make("th", { class: "number" }, name)))),
      make("tbody", {}, ...bands.map(([band, row]) => make("tr", {}, make("td", {}, band || "none"),
        ...columns.map(([key, , digits]) => make("td", { class: "number" }, show(row[key], digits)))))))));
  }
})();
