// Failures, stops and flags by step and reason; files set aside; the exposures.
(() => {
  // Of the same message for many sections, one line.
  function placesOf(problem) {
    const groups = new Map();
    for (const [exposure, section, message] of problem.places) {
      const general = message.replaceAll(exposure, "…").replaceAll(`section ${section}`, "section …").replace(/^exposure …, section …: /, "");
      if (!groups.has(general)) groups.set(general, { first: message, places: [] });
      groups.get(general).places.push([exposure, section]);
    }
    const list = make("div", { class: "places" });
    for (const [general, { first, places }] of groups) {
      const message = places.length === 1 ? first.replace(`exposure ${places[0][0]}, section ${places[0][1]}: `, "") : general;
      const byExposure = new Map();
      for (const [exposure, section] of places) byExposure.set(exposure, [...(byExposure.get(exposure) || []), section]);
      const where = [...byExposure].map(([exposure, sections]) => `${exposure} ${sections.join(", ")}`).join("; ");
      list.append(make("div", {}, make("span", {}, where), make("br"), message || "no message"));
    }
    if (problem.places.length < problem.count) {
      list.append(make("div", {}, `and ${problem.count - problem.places.length} more: seechange show lists all`));
    }
    return list;
  }

  const cards = night.problems.map((problem, k) => make("details", { class: "card", open: problem.outcome === "failed" && k < 3 },
    make("summary", {}, make("span", { class: problem.outcome }, problem.outcome), make("b", {}, problem.reason.replaceAll("_", " ")),
      problem.step ? `at ${problem.step.replaceAll("_", " ")} ` : "", make("span", { class: "count" }, plural(problem.count, "section"))),
    placesOf(problem)));
  fill(byId("problem-list"), ...(cards.length ? cards : [make("p", { class: "card" },
    night.exposures.length ? "Nothing: no section failed, stopped or was flagged." : "There are no exposures of this night.")]));

  if (night.files.length) {
    const rows = night.files.map(([state, address, reason, message]) => make("tr", {},
      make("td", { class: state === "refused" ? "failed" : "stopped" }, state === "refused" ? "set aside" : "waited for"),
      make("td", { title: address }, address.split("/").pop()), make("td", {}, reason.replaceAll("_", " ")), make("td", {}, message)));
    fill(byId("file-list"), make("h3", {}, "Files that are no exposures yet"),
      make("p", { class: "hint" }, "Of this and other nights. Once mended: seechange incoming retry."),
      make("div", { class: "card scroll" }, make("table", {}, make("tbody", {}, ...rows))));
  }

  const columns = ["seeing", "sky", "zero", "depth", "detections", "delay"];
  const rows = night.exposures.map((e, k) => ({ e, of: Object.fromEntries(columns.map((c) => [c, []])), fates: [0, 0, 0, 0] }));
  points.exposure.forEach((e, i) => {
    columns.forEach((c) => rows[e].of[c].push(points[c][i]));
    rows[e].fates[points.fate[i]] += 1;
  });
  const cell = (value, digits) => make("td", { class: "number" }, show(value, digits));
  const heads = ["UTC", "Exposure", "Target", "Filter", "s", "Airmass", "Seeing", "Sky", "Zero point", "Depth", "Detections", "Delay", "Sections"];
  fill(byId("exposure-list"), make("details", { class: "card" }, make("summary", {}, plural(night.exposures.length, "exposure"), ", medians over their sections"),
    make("div", { class: "scroll" }, make("table", {},
      make("thead", {}, make("tr", {}, ...heads.map((name, k) => make("th", { class: k > 3 && k < 12 ? "number" : null }, name)))),
      make("tbody", {}, ...rows.map(({ e, of, fates }) => make("tr", {},
        make("td", {}, clock(e.mjd)), make("td", {}, e.name), make("td", {}, e.target), make("td", {}, e.filter),
        cell(e.time, 0), cell(e.airmass, 2), cell(median(of.seeing), 2), cell(median(of.sky), 2), cell(median(of.zero), 3), cell(median(of.depth), 2),
        cell(median(of.detections), 0), make("td", { class: "number" }, median(of.delay) === null ? "–" : minutes(median(of.delay))),
        make("td", {}, ...(e.bad ? [make("span", { class: "failed" }, `called bad: ${e.bad} `)] : []),
          ...FATES.map((fate, k) => fates[k] && make("span", { class: fate }, `${fates[k]} ${fate} `)).filter(Boolean)))))))));
})();
