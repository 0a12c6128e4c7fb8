// The view that compares two live versions: the order and the scores that each gives the same candidates.

import {$, make, percent, showProblem, signed} from "./dom.js";
import {learnTitles, requestBody, settled, titleOf} from "./request.js";
import {get, post} from "./service.js";

const SIDES = ["left", "right"];

let comparisons = 0;

export function startCompare() {
  $("compare-form").addEventListener("submit", async event => {
    event.preventDefault();
    try {
      await compare();
      showProblem($("compare-error"), "");
    } catch (error) {
      $("compare-table").hidden = true;
      $("compare-facts").textContent = "";
      showProblem($("compare-error"), error.message);
    }
  });
}

/** Offer the versions that are live now. */
export async function showCompare() {
  try {
    const live = Object.entries((await get("models", {limit: 1})).live);
    SIDES.forEach((side, n) => {
      const chosen = $(side).value;
      $(side).replaceChildren(...live.map(([label, version]) => make("option", {value: label}, `${label}: version ${version}`)));
      $(side).value = live.some(([label]) => label === chosen) ? chosen : live[Math.min(n, live.length - 1)]?.[0];
    });
    $("compare-button").disabled = !live.length;
    $("compare-note").hidden = live.length > 1;
    showProblem($("compare-error"), "");
  } catch (error) {
    showProblem($("compare-error"), error.message);
  }
}

async function compare() {
  const number = ++comparisons;
  await settled();
  const body = requestBody();
  const answers = await Promise.all(SIDES.map(async side => (await post("rank", {...body, model: $(side).value})).answer));
  await learnTitles(body.item_ids);
  if (number !== comparisons) return;
  const [left, right] = answers.map(answer => new Map(answer.items.map((item, place) => [item.item_id, {place, score: item.score}])));
  SIDES.forEach((side, n) => {
    $(`${side}-place`).textContent = `# in ${answers[n].version}`;
    $(`${side}-score`).textContent = `Score in ${answers[n].version}`;
  });
  const items = [...left].filter(([id]) => right.has(id)).map(([id, one]) => ({id, one, other: right.get(id)}));
  $("compare-rows").replaceChildren(...items.map(({id, one, other}) => make("tr", {},
    make("td", {class: "item"}, ...(titleOf(id) ? [titleOf(id), " ", make("small", {}, id)] : [id])),
    ...[one.place + 1, other.place + 1].map(place => make("td", {class: "number"}, String(place))),
    ...[one.score, other.score].map(score => make("td", {class: "number"}, percent(score))),
    make("td", {class: `number ${other.score > one.score ? "up" : other.score < one.score ? "down" : ""}`}, `${signed(100 * (other.score - one.score), 2)} points`))));
  $("compare-table").hidden = false;
  $("compare-facts").textContent = summary(items);
}

function summary(items) {
  if (!items.length) return "They have no item in common.";
  const n = items.length;
  const squares = items.reduce((sum, {one, other}) => sum + (one.place - other.place) ** 2, 0);
  const moved = items.filter(({one, other}) => one.place !== other.place).length;
  const shift = items.reduce((sum, {one, other}) => sum + other.score - one.score, 0) / n;
  const agreement = n > 1 ? `; agreement of the orders (Spearman) ${(1 - 6 * squares / (n * (n * n - 1))).toFixed(3)}` : "";
  return `${moved} of ${n} items are in another place${agreement}; the scores differ by ${signed(100 * shift, 2)} points in the mean.`;
}
