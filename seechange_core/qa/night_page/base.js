// Text from the data is only ever set as text: no markup in it can come to life.
const night = JSON.parse(document.getElementById("night-data").textContent);
const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "rect", "text", "title", "polyline", "stop", "linearGradient", "defs"];
  const node = svg.includes(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "color") node.style.setProperty("--c", value || "var(--text)");
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const fill = (node, ...children) => { node.replaceChildren(...children.filter(Boolean)); return node; };
const known = (values) => values.filter((v) => v !== null && v !== undefined && isFinite(v));

function median(values) {
  const sorted = known(values).sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length ? (sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2) : null;
}

function quantile(values, share) {
  const sorted = known(values).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] : null;
}

const show = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
const minutes = (value) => (value >= 2880 ? `${(value / 1440).toFixed(1)} d` : value >= 120 ? `${(value / 60).toFixed(1)} h`
  : value >= 10 ? `${value.toFixed(0)} min` : value >= 1 ? `${value.toFixed(1)} min` : `${(value * 60).toFixed(0)} s`);

const dateOf = (mjd) => new Date((mjd - 40587) * 86400000);
const clock = (mjd) => dateOf(mjd + 0.5 / 1440).toISOString().slice(11, 16);
const moment = (mjd) => dateOf(mjd).toISOString().slice(0, 16).replace("T", " ");

// Round numbers between two values, about so many.
function ticks(low, high, count) {
  const rough = (high - low) / Math.max(count, 1) || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((s) => s * power).find((s) => s >= rough * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) found.push(k * step);
  return { values: found, digits: Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (String(step / power).startsWith("2.5") ? 1 : 0)) };
}

// Steps of a clock, in days.
function clockTicks(low, high, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720, 1440].map((m) => m / 1440);
  const step = steps.find((s) => (high - low) / s <= count) || Math.ceil((high - low) / count);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-6); k * step <= high + 1e-9; k++) found.push(k * step);
  return found;
}

const scale = (low, high, from, to) => (v) => from + ((v - low) / (high - low || 1)) * (to - from);

// The range of values without the few furthest off, some room around it.
function range(values, least = 0) {
  const all = known(values);
  let low = Math.min(...all), high = Math.max(...all);
  if (all.length > 40) {
    const [a, b] = [quantile(all, 0.01), quantile(all, 0.99)];
    low = Math.max(low, a - 1.5 * (b - a)); high = Math.min(high, b + 1.5 * (b - a));
  }
  const room = Math.max(0.06 * (high - low), (least - (high - low)) / 2, 1e-6);
  return [low - room, high + room];
}

const tip = byId("tip");
function tell(words, event) {
  tip.textContent = words;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 16, innerHeight - box.height - 8))}px`;
}
const untell = () => { tip.hidden = true; };

const points = night.points;
const counted = points.exposure.map((e) => !night.exposures[e].bad);
const bandColor = (k) => (night.bands[k] || {}).color;
const FATES = ["done", "stopped", "failed", "unfinished"];
// Drawn again when the window changes its width.
const drawings = [];
