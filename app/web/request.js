// What the form asks for: a user, his and the context's features, and candidates, found in the catalogue or typed.

import {$, debounced, make} from "./dom.js";
import {get} from "./service.js";

const SEARCH_MS = 150;
const FOUND = 200;
const SHOWN = 8;
const MAX_FIELDS = 40;

const titles = new Map();
let hasCatalogue = false;

/** The title of an item; empty where none is known. */
export const titleOf = id => titles.get(id)?.title ?? "";
/** The features of an item as the catalogue has them. */
export const featuresOf = id => titles.get(id)?.features ?? {};
export const itemIds = () => $("items").value.split(/[\s,]+/).filter(Boolean);

/** The body of POST /rank. */
export function requestBody() {
  const body = {user_id: $("user").value.trim(), item_ids: itemIds()};
  const features = changedFeatures();
  if (Object.keys(features.user).length) body.user_features = features.user;
  if (Object.keys(features.context).length) body.context = features.context;
  if ($("model").value.trim()) body.model = $("model").value.trim();
  return body;
}

/** What differs from what is stored, by entity: raw name to value. */
function changedFeatures() {
  const changed = {user: {}, context: {}};
  for (const input of inputs()) {
    if (input.value !== input.dataset.stored) changed[input.dataset.entity][input.dataset.field] = parsed(input);
  }
  return changed;
}

const inputs = () => $("feature-inputs").querySelectorAll("input");

function parsed(input) {
  const text = input.value.trim();
  if (!text) return null;
  if (input.dataset.type === "numeric" && Number.isFinite(Number(text))) return Number(text);
  if (input.dataset.type === "multi_categorical" && /^[[{]/.test(text)) {
    try { return JSON.parse(text); } catch (error) { throw new Error(`${input.dataset.field}: ${error.message}`); }
  }
  return text;
}

/** The values of all feature inputs, to say later which of them changed, and to restore them. */
export function featureValues() {
  return new Map([...inputs()].map(input => [`${input.dataset.entity}.${input.dataset.field}`, input.value]));
}

export function restoreFeatures(values) {
  for (const input of inputs()) {
    input.value = values.get(`${input.dataset.entity}.${input.dataset.field}`) ?? input.dataset.stored;
    mark(input);
  }
}

const mark = input => input.classList.toggle("changed", input.value !== input.dataset.stored);

/** Let the form be filled: `onFeature` is called when a feature was changed. */
export async function startRequest(onFeature) {
  $("items").addEventListener("input", countItems);
  $("user").addEventListener("input", debounced(findUsers, SEARCH_MS));
  $("user").addEventListener("change", showStored);
  $("search").addEventListener("input", debounced(findItems, SEARCH_MS));
  $("facet").addEventListener("change", findItems);
  $("search").addEventListener("keydown", event => { if (event.key === "Enter") event.preventDefault(); });
  $("feature-inputs").addEventListener("input", event => mark(event.target));
  $("feature-inputs").addEventListener("input", debounced(onFeature, 2 * SEARCH_MS));
  $("key").addEventListener("change", fill);
  await fill();
}

/** Fill the form with what is live and what the catalogue has, as far as the service lets us know. */
async function fill() {
  await Promise.all([fillFromModels(), fillFromCatalogue()]);
  await showStored();
}

async function fillFromModels() {
  let models;
  try { models = await get("models", {limit: 1}); } catch { return; }
  const live = models.versions.find(version => version.live.includes("stable"));
  $("models").replaceChildren(...Object.entries(models.live).map(([label, version]) =>
    make("option", {value: label, label: `version ${version}`})));
  showFields(models.fields);
  if (!live || $("items").value) return;
  $("items").value = live.example_items.join(" ");
  countItems();
}

async function fillFromCatalogue() {
  let catalogue;
  try { catalogue = await get("catalogue"); } catch { return; }
  hasCatalogue = true;
  const columns = Object.entries(catalogue.items.facets).map(([column, values]) =>
    make("optgroup", {label: column}, ...values.map(value => make("option", {value: JSON.stringify([column, value])}, value))));
  $("facet").replaceChildren(make("option", {value: ""}, "all"), ...columns);
  $("picker").hidden = !catalogue.items.count;
  $("user-hint").textContent = catalogue.users.count ? `one of ${catalogue.users.count.toLocaleString("en")}; empty for a guest` : "an id; empty for a guest";
  await Promise.all([findItems(), findUsers()]);
  if (!$("user").value && $("users").firstChild) $("user").value = $("users").firstChild.value;
  await learnTitles(itemIds());
}

/** Learn the titles of items, for the answer. */
export async function learnTitles(ids) {
  const unknown = ids.filter(id => !titles.has(id) && !id.includes(",")).slice(0, FOUND);
  if (!hasCatalogue || !unknown.length) return;
  for (const id of unknown) titles.set(id, {title: "", features: {}});
  try { learn((await get("catalogue/items", {ids: unknown.join(",")})).entries); } catch { /* ids are shown */ }
}

function learn(entries) {
  for (const entry of entries) titles.set(entry.id, entry);
}

async function findUsers() {
  try {
    const {entries} = await get("catalogue/users", {q: $("user").value.trim(), limit: 20});
    $("users").replaceChildren(...entries.map(entry => make("option", {
      value: entry.id, label: [entry.title, ...Object.values(entry.features).slice(0, 4)].filter(Boolean).join(" · ")})));
  } catch { /* there is no catalogue of users: ids are typed */ }
}

let found = [];

async function findItems() {
  const [facet, value] = $("facet").value ? JSON.parse($("facet").value) : ["", ""];
  let answer;
  try { answer = await get("catalogue/items", {q: $("search").value, facet, value, limit: FOUND}); } catch { return; }
  found = answer.entries;
  learn(found);
  $("found-count").textContent = answer.total > SHOWN ? `${answer.total.toLocaleString("en")} found, the first:` : `${answer.total} found`;
  $("found").replaceChildren(...found.slice(0, SHOWN).map(entry => {
    const add = make("button", {type: "button", class: "quiet", "aria-label": `Add ${entry.title || entry.id}`}, "Add");
    add.addEventListener("click", () => addItems([entry.id]));
    return make("li", {}, make("span", {}, entry.title || entry.id), make("small", {}, Object.values(entry.features).slice(0, 2).join(" · ")), add);
  }));
  $("add-all").hidden = !found.length;
  $("add-all").textContent = found.length === 1 ? "Add it" : `Add these ${found.length}`;
  $("add-all").onclick = () => addItems(found.map(entry => entry.id));
}

function addItems(ids) {
  $("items").value = [...new Set([...itemIds(), ...ids])].join(" ");
  countItems();
}

function countItems() {
  const count = new Set(itemIds()).size;
  $("item-count").textContent = count ? `${count} item${count === 1 ? "" : "s"}` : "item ids, by spaces, commas or lines";
}

function showFields(fields) {
  const shown = fields.filter(field => field.entity === "user" || field.entity === "context").slice(0, MAX_FIELDS);
  $("features").hidden = !shown.length;
  $("feature-inputs").replaceChildren(...["user", "context"].filter(entity => shown.some(field => field.entity === entity)).map(entity =>
    make("fieldset", {}, make("legend", {}, entity === "user" ? "Of the user" : "Of the context"),
      ...shown.filter(field => field.entity === entity).map(field => {
        const input = make("input", {autocomplete: "off", placeholder: entity === "user" && !hasCatalogue ? "as stored" : "missing"});
        Object.assign(input.dataset, {entity, field: field.name, type: field.type, stored: ""});
        return make("label", {}, `${field.name} `, input);
      }))));
}

/** Show what the store has of the user; what is typed over it is sent with the request. */
async function showStored() {
  const user = $("user").value.trim();
  let stored = {};
  if (user && hasCatalogue) {
    try { stored = (await get("catalogue/features", {user_id: user})).features; } catch { /* typed values are sent all the same */ }
  }
  for (const input of inputs()) {
    if (input.dataset.entity !== "user") continue;
    input.dataset.stored = input.value = stored[input.dataset.field] ?? "";
    mark(input);
  }
}
