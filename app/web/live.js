// The view of what goes on: it reads /metrics, which adds up all processes, and tells of changes of what is live.

import {$, bar, make, percent} from "./dom.js";
import {get, getText} from "./service.js";

const EVERY_MS = 2000;
const KEPT = 60;
const WINDOW_MS = 10_500;
const EVENTS = 30;

const samples = [];
const drawn = new Map();
let lastLive = null;

export function startLive() {
  watch();
  setInterval(watch, EVERY_MS);
}

export function showLive() {
  if (samples.length > 1) draw();
}

/** Take a sample. What is live is looked at on every view, so that no swap goes untold; metrics on this one. */
async function watch() {
  if (document.hidden) return;
  try { tellChanges(await get("models", {limit: 1})); } catch { /* the line of the health says so */ }
  if ($("live").hidden) return;
  try {
    samples.push({at: performance.now(), ...parse(await getText("metrics"))});
    if (samples.length > KEPT) samples.shift();
    $("live-note").textContent = "All processes of the service, over the last ten seconds.";
    if (samples.length > 1) draw();
  } catch (error) {
    $("live-note").textContent = `The metrics cannot be read: ${error.message}`;
  }
}

/** Prometheus text as name to [labels, value] pairs. */
function parse(text) {
  const metrics = {};
  for (const line of text.split("\n")) {
    const match = /^(ctr_\w+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    const labels = Object.fromEntries([...(match[2] ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(label => [label[1], label[2]]));
    (metrics[match[1]] ??= []).push([labels, Number(match[3])]);
  }
  return {metrics};
}

const total = (sample, name, holds = () => true) =>
  (sample.metrics[name] ?? []).filter(([labels]) => holds(labels)).reduce((sum, [, value]) => sum + value, 0);

function draw() {
  const now = samples.at(-1), then = samples.find(sample => now.at - sample.at <= WINDOW_MS);
  if (then === now) return; // this view was not looked at for a while
  const seconds = (now.at - then.at) / 1000;
  const grown = (name, holds) => Math.max(0, total(now, name, holds) - total(then, name, holds));
  const answers = grown("ctr_rank_requests_total");
  const hits = grown("ctr_item_cache_hits_total"), misses = grown("ctr_item_cache_misses_total");
  const degraded = grown("ctr_degraded_total");
  const failed = grown("ctr_rank_requests_total", labels => !labels.status.startsWith("2"));
  const expected = total(now, "ctr_expected_clicks_total");
  const clicks = total(now, "ctr_feedback_total", labels => labels.type === "click");
  tile("Requests a second", (answers / seconds).toFixed(1), answers / seconds);
  tile("Half of them within", milliseconds(quantile(now, then, 0.5)), quantile(now, then, 0.5) ?? 0);
  tile("99 of 100 within", milliseconds(quantile(now, then, 0.99)), quantile(now, then, 0.99) ?? 0);
  tile("Items from the cache", hits + misses ? percent(hits / (hits + misses)) : "–", hits + misses ? hits / (hits + misses) : 1);
  tile("Degraded answers", answers ? percent(Math.min(1, degraded / answers)) : "–", degraded);
  tile("Refused or failed", answers ? percent(failed / answers) : "–", failed);
  tile("Versions swapped in", String(total(now, "ctr_model_swaps_total", labels => labels.outcome === "live")), total(now, "ctr_model_swaps_total"));
  tile("Clicks over expected", expected && clicks ? `${(clicks / expected).toFixed(2)}` : "–", expected ? clicks / expected : 0);
  drawStages(now, then);
}

/** A number with its course; made once, so that nothing jumps. */
function tile(name, text, value) {
  let one = drawn.get(name);
  if (!one) {
    const node = make("div", {class: "tile"});
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", "0 0 100 24");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    svg.append(line);
    const number = make("strong");
    node.append(make("span", {}, name), number, svg);
    $("tiles").append(node);
    drawn.set(name, one = {number, line, values: []});
  }
  one.number.textContent = text;
  one.values.push(value);
  if (one.values.length > KEPT) one.values.shift();
  const most = Math.max(...one.values, 1e-9);
  one.line.setAttribute("points", one.values.map((each, n) => `${(100 * n) / (KEPT - 1)},${23 - (22 * each) / most}`).join(" "));
}

/** The duration in seconds that a share of the answers took at most, by the bounds of the histogram; null without any. */
function quantile(now, then, share) {
  const bounds = (now.metrics.ctr_rank_duration_seconds_bucket ?? []).map(([labels]) => labels.le);
  const counts = bounds.map(le => total(now, "ctr_rank_duration_seconds_bucket", labels => labels.le === le) -
    total(then, "ctr_rank_duration_seconds_bucket", labels => labels.le === le));
  const all = counts.at(-1);
  if (!all) return null;
  const at = counts.findIndex(count => count >= share * all);
  const lower = at > 0 ? Number(bounds[at - 1]) : 0, upper = bounds[at] === "+Inf" ? lower : Number(bounds[at]);
  const below = at > 0 ? counts[at - 1] : 0;
  return lower + (upper - lower) * (share * all - below) / Math.max(1, counts[at] - below);
}

const milliseconds = seconds => seconds === null ? "–" : `${(1000 * seconds).toFixed(1)} ms`;

function drawStages(now, then) {
  const stages = (now.metrics.ctr_stage_duration_seconds_sum ?? []).map(([{stage}]) => {
    const of = labels => labels.stage === stage;
    const count = total(now, "ctr_stage_duration_seconds_count", of) - total(then, "ctr_stage_duration_seconds_count", of);
    return [stage, count ? (total(now, "ctr_stage_duration_seconds_sum", of) - total(then, "ctr_stage_duration_seconds_sum", of)) / count : 0];
  });
  const most = Math.max(...stages.map(([, mean]) => mean), 1e-9);
  $("live-stages").replaceChildren(make("table", {class: "parts"}, make("tbody", {}, ...stages.map(([stage, mean]) => make("tr", {},
    make("th", {scope: "row"}, stage), make("td", {class: "bars"}, bar(mean / most)), make("td", {class: "number"}, mean ? milliseconds(mean) : "–"))))));
}

function tellChanges(models) {
  const live = models.live;
  if (!lastLive) {
    tell(Object.entries(live).map(([label, version]) => `Version ${version} is ${label}.`).join(" ") || "No version is live.");
  } else {
    for (const label of new Set([...Object.keys(lastLive.live), ...Object.keys(live)])) {
      const [was, is] = [lastLive.live[label], live[label]];
      if (was === is) continue;
      if (is === undefined) tell(`Version ${was} is ${label} no more.`);
      else tell(`Version ${is} is ${label}${label === "canary" ? `, for ${percent(models.canary_share)} of the users` : ""}${was === undefined ? "" : `, in place of ${was}`}.`);
    }
    const known = new Set(lastLive.problems.map(problem => problem.message));
    for (const problem of models.problems) if (!known.has(problem.message)) tell(`${problem.label}: ${problem.message}`);
  }
  lastLive = models;
}

function tell(text) {
  $("events").prepend(make("li", {}, make("time", {}, new Date().toLocaleTimeString("en-GB")), " ", text));
  while ($("events").children.length > EVENTS) $("events").lastChild.remove();
}
