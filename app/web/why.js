// Draws why an item got its score: the parts of its logit as bars, the crosses of its fields as a heat map, and what
// each field changes.

import {divergingBar, make, signed} from "./dom.js";

const MOST_BARS = 16;
const MOST_MAPPED = 16;

/** The explanation of an item of an answer, as a node. */
export function explanation(item) {
  const {logit, calibration, parts, effects, no_parts: noParts} = item.explanation;
  const nodes = [];
  if (logit !== null) {
    nodes.push(make("p", {}, "The model's logit is ", make("strong", {}, logit.toFixed(3)),
      `; the click probability ${item.score.toFixed(4)} is sigmoid(${calibration.scale.toFixed(3)} × logit ${signed(calibration.offset, 3)}).`));
  }
  if (parts) {
    nodes.push(make("h3", {}, "Parts, which sum to the logit"), bars(grouped(parts)));
    const map = heatMap(parts);
    if (map) nodes.push(make("h3", {}, "Crosses of two fields"), map);
  } else if (noParts) {
    nodes.push(make("p", {class: "note"}, `No parts: ${noParts}.`));
  }
  if (effects.length) {
    nodes.push(make("h3", {}, "Without what the store or the request has of a field, the calibrated logit would be lower by"),
      bars(effects.map(({field, effect}) => [field, effect])));
  }
  return make("div", {class: "explanation"}, ...nodes);
}

/** The parts as (name, value), the strongest first; what is left over is one. */
function grouped(parts) {
  const named = parts.map(part => [nameOf(part), part.value]);
  const [fixed, rest] = [named.slice(0, 1), named.slice(1).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]))];
  const left = rest.slice(MOST_BARS);
  if (left.length) rest.splice(MOST_BARS, left.length, [`${left.length} smaller parts`, left.reduce((sum, part) => sum + part[1], 0)]);
  return [...fixed, ...rest];
}

function nameOf({part, fields, order, dimension}) {
  if (part === "first") return fields[0];
  if (part === "pair") return fields.length ? fields.join(" × ") : "other crosses";
  if (part === "order") return `crosses of ${order} fields`;
  if (part === "dimension") return `pooled cross ${dimension}`;
  return part === "deep" ? "deep part" : part;
}

function bars(rows) {
  const most = Math.max(...rows.map(([, value]) => Math.abs(value)), 1e-9);
  return make("table", {class: "parts"}, make("tbody", {}, ...rows.map(([name, value]) => make("tr", {},
    make("th", {scope: "row"}, name), make("td", {class: "bars"}, divergingBar(value, most)), make("td", {class: "number"}, signed(value, 3))))));
}

/** Field by field, what their cross adds; null where there are no crosses of two. */
function heatMap(parts) {
  const pairs = parts.filter(({part, fields}) => part === "pair" && fields.length === 2);
  if (!pairs.length) return null;
  const weight = new Map();
  for (const {fields, value} of pairs) for (const field of new Set(fields)) weight.set(field, (weight.get(field) ?? 0) + Math.abs(value));
  const names = [...weight.keys()].sort((a, b) => weight.get(b) - weight.get(a)).slice(0, MOST_MAPPED);
  const values = new Map(pairs.flatMap(({fields: [one, other], value}) => [[`${one}\n${other}`, value], [`${other}\n${one}`, value]]));
  const most = Math.max(...pairs.map(({value}) => Math.abs(value)), 1e-9);
  const head = make("tr", {}, make("td", {}), ...names.map(name => make("th", {scope: "col"}, make("span", {}, name))));
  const rows = names.map(row => make("tr", {}, make("th", {scope: "row"}, row), ...names.map(column => {
    const value = values.get(`${row}\n${column}`);
    if (value === undefined) return make("td", {});
    const cell = make("td", {class: value < 0 ? "below" : "above", title: `${row} × ${column}: ${signed(value, 4)}`}, signed(value, 2));
    cell.style.setProperty("--strength", `${Math.round(8 + 47 * Math.abs(value) / most)}%`);
    return cell;
  })));
  return make("div", {class: "wide", tabIndex: 0, role: "region", "aria-label": "Crosses of two fields"},
    make("table", {class: "heat"}, make("thead", {}, head), make("tbody", {}, ...rows)));
}
