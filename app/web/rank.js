// The view that ranks: the answer, how it moves when a feature is changed, and why an item got its score.

import {$, bar, make, percent, showProblem} from "./dom.js";
import {emptyMeans, featuresOf, learnTitles, requestBody, restoreTyped, settled, startRequest, storedValues, titleOf, typedValues} from "./request.js";
import {post} from "./service.js";
import {explanation} from "./why.js";

const ROWS = 30;
const STAGE_COLOURS = 5;

/** The answer that later ones are compared with: places by item, and what was typed over stored features. */
let before = null;
let asked = 0;

export function startRank() {
  $("form").addEventListener("submit", async event => {
    event.preventDefault();
    await rank(false);
  });
  $("user").addEventListener("change", () => {
    asked++; // the answer for another user comes too late
    showChanges([]); // what was typed for one user is not put back for another
  });
  startRequest(() => { if (before) rank(true); });
}

/** Rank, and show the answer. `whatIf`: beside the one before, which stays what is compared with. */
async function rank(whatIf) {
  const number = ++asked;
  try {
    await settled();
    const body = requestBody(), typed = typedValues();
    const began = performance.now();
    const {answer, headers} = await post("rank", body);
    const whole = performance.now() - began;
    await learnTitles(answer.items.map(item => item.item_id));
    if (number !== asked) return; // a later one is on its way
    const same = JSON.stringify([body.user_id, body.item_ids, body.model, answer.version, answer.degraded]);
    if (!whatIf || before?.same !== same) { // arrows tell of features alone
      before = {same, typed, places: new Map(answer.items.map((item, place) => [item.item_id, place]))};
      whatIf = false;
    }
    showAnswer(answer, body, whatIf);
    showChanges(whatIf ? changes(typed) : []);
    showTiming(headers.get("Server-Timing") || "", whole);
    showProblem($("error"), "");
    $("answer").hidden = false;
  } catch (error) {
    if (number !== asked) return;
    showProblem($("error"), error.message);
    $("answer").hidden = true;
  }
  $("empty").hidden = true;
}

function changes(typed) {
  const stored = storedValues(), value = (some, name) => some.get(name) ?? stored.get(name);
  return [...stored.keys()].filter(name => value(before.typed, name) !== value(typed, name))
    .map(name => `${name} ${value(before.typed, name) || emptyMeans(name)} → ${value(typed, name) || emptyMeans(name)}`);
}

function showChanges(changed) {
  $("what-if").hidden = !changed.length;
  if (!changed.length) return;
  const keep = make("button", {type: "button", class: "quiet"}, "Compare with this from now on");
  const undo = make("button", {type: "button", class: "quiet"}, "Undo");
  keep.addEventListener("click", () => { $("answer-title").focus(); rank(false); });
  undo.addEventListener("click", () => { $("answer-title").focus(); restoreTyped(before.typed); rank(true); });
  $("what-if").replaceChildren(make("strong", {}, "What if "), changed.join(", "), " ", undo, " ", keep);
}

function showAnswer(answer, body, whatIf) {
  const missing = new Set(answer.missing.items);
  const warnings = answer.degraded.map(word => word.replaceAll("_", " "));
  if (answer.missing.user && body.user_id) warnings.push("user unknown: scored from defaults");
  if (missing.size) warnings.push(`${missing.size} of the items unknown`);
  for (const name of answer.ignored ?? []) warnings.push(`${name} is read by no field`);
  $("facts").replaceChildren(
    make("span", {class: "badge"}, `${answer.model} version ${answer.version}`),
    make("span", {class: "badge"}, answer.label),
    ...warnings.map(warning => make("span", {class: "badge warn"}, warning)));
  const best = Math.max(...answer.items.map(item => item.score), 1e-9);
  const rows = answer.items.map((item, place) => row(item, place, {best, missing, body, whatIf, version: answer.version}));
  $("rows").replaceChildren(...rows.slice(0, ROWS));
  $("more").hidden = rows.length <= ROWS;
  $("more").textContent = `Show all ${rows.length}`;
  $("more").onclick = () => {
    $("rows").append(...rows.slice(ROWS));
    rows[ROWS].querySelector("button").focus();
    $("more").hidden = true;
  };
}

function row(item, place, {best, missing, body, whatIf, version}) {
  const title = titleOf(item.item_id);
  const why = make("button", {type: "button", class: "quiet", "aria-expanded": "false", "aria-label": `Why ${title || item.item_id}`}, "Why");
  const node = make("tr", {class: missing.has(item.item_id) ? "missing" : ""},
    make("td", {class: "place"}, String(place + 1)),
    make("td", {class: "move"}, ...(whatIf ? [movement(before.places.get(item.item_id), place)] : [])),
    make("td", {class: "item"}, ...(title ? [title, " ", make("small", {}, item.item_id)] : [item.item_id])),
    make("td", {class: "bars"}, bar(item.score / best)),
    make("td", {class: "number"}, percent(item.score)),
    make("td", {}, why));
  why.addEventListener("click", () => toggleWhy(why, node, {...body, model: version, item_ids: [item.item_id], explain: true}));
  return node;
}

function movement(was, place) {
  if (was === undefined) return make("span", {class: "same"}, "new");
  const steps = was - place;
  if (!steps) return make("span", {class: "same", title: "where it was"}, "·");
  const [className, sign, word] = steps > 0 ? ["up", "▲", "up"] : ["down", "▼", "down"];
  return make("span", {class: className}, make("span", {"aria-hidden": "true"}, sign), make("span", {class: "unseen"}, `${word} `), String(Math.abs(steps)));
}

async function toggleWhy(button, node, body) {
  if (button.getAttribute("aria-expanded") === "true") {
    node.nextSibling.remove();
    button.setAttribute("aria-expanded", "false");
    return;
  }
  button.setAttribute("aria-expanded", "true");
  const cell = make("td", {colSpan: 6}, "asking…");
  node.after(make("tr", {class: "why"}, cell));
  try {
    const {answer} = await post("rank", body);
    const degraded = answer.degraded.map(word => word.replaceAll("_", " ")).join(", ");
    const features = Object.entries(featuresOf(answer.items[0].item_id)).map(pair => pair.join(": ")).join(" · ");
    const notes = [degraded && `explained as it is scored now: ${degraded}`, features].filter(Boolean);
    cell.replaceChildren(...notes.map(text => make("p", {class: "note"}, text)), explanation(answer.items[0]));
  } catch (error) {
    cell.replaceChildren(make("p", {class: "error", role: "alert"}, error.message));
  }
}

function showTiming(header, whole) {
  const stages = header.split(",").map(part => /([\w-]+);dur=([\d.]+)/.exec(part)).filter(Boolean);
  const total = stages.reduce((sum, stage) => sum + Number(stage[2]), 0) || 1;
  $("stages").replaceChildren(...stages.map((stage, n) => bar(stage[2] / total, `stage s${n % STAGE_COLOURS}`)));
  $("legend").replaceChildren(...stages.map((stage, n) =>
    make("span", {}, make("i", {class: `s${n % STAGE_COLOURS}`}), `${stage[1]} ${Number(stage[2]).toFixed(2)} ms`)),
  make("span", {}, `here and back ${whole.toFixed(1)} ms`));
}
