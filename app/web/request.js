// What the form asks for: a user, his and the context's features, and candidates, found in the catalogue or typed.

import {$, debounced, make} from "./dom.js";
import {get} from "./service.js";

const SEARCH_MS = 150;
const FOUND = 200;
const ASKED_CHARACTERS = 6000;
const MAX_VALUE = 500; // characters; of a longer value the service shows so many, and one that says so
const SHOWN = 8;
const MAX_FIELDS = 40;
const READ_AFTER_MS = [0, 300, 1000];
const READ_AGAIN_MS = 2000;
const MOST_APART_MS = 60000;
const TOO_MANY = 429;

const titles = new Map();
let hasCatalogue = false;

/** The title of an item; empty where none is known. */
export const titleOf = id => titles.get(id)?.title ?? "";
/** The features of an item as the catalogue has them. */
export const featuresOf = id => titles.get(id)?.features ?? {};
/** The ids that are typed, apart by blanks, commas or lines; one that holds such a thing is in double quotes. */
export const itemIds = () => ($("items").value.match(/"(?:[^"\\]|\\.)*"|[^\s,]+/g) ?? []).map(unquoted).filter(Boolean);

function unquoted(word) {
  if (!word.startsWith('"')) return word;
  try { return JSON.parse(word); } catch { return word; }
}

const quoted = id => /[\s,"]/.test(id) ? JSON.stringify(id) : id;

/** The body of POST /rank. */
export function requestBody() {
  const body = {user_id: $("user").value.trim(), item_ids: itemIds()};
  if (!body.item_ids.length) throw new Error("There is no candidate: find some above, or type their ids.");
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
    if (isChanged(input)) changed[input.dataset.entity][input.dataset.field] = parsed(input);
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

/** What is typed over what is stored, by name: to say later what was changed since, and to restore it. */
export function typedValues() {
  return new Map([...inputs()].filter(isChanged).map(input => [nameOf(input), input.value]));
}

/** What an empty box stands for: what is stored, where that has not been read. */
export const emptyMeans = name => [...inputs()].find(input => nameOf(input) === name).placeholder;

/** What is stored, by name, as far as it has been read. */
export function storedValues() {
  return new Map([...inputs()].map(input => [nameOf(input), input.dataset.stored]));
}

export function restoreTyped(values) {
  for (const input of inputs()) {
    input.value = values.get(nameOf(input)) ?? input.dataset.stored;
    mark(input);
  }
}

const nameOf = input => `${input.dataset.entity}.${input.dataset.field}`;
const isChanged = input => input.value !== input.dataset.stored;
function mark(input) {
  input.classList.toggle("changed", isChanged(input));
  input.readOnly = !isChanged(input) && "isCut" in input.dataset;
  input.title = input.readOnly ? "a long value, shown in part: it cannot be changed here" : "";
  $("as-stored").hidden = ![...inputs()].some(isChanged);
}

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
  $("as-stored").addEventListener("click", () => { restoreTyped(new Map()); $("features").querySelector("summary").focus(); onFeature(); });
  $("key").addEventListener("change", fill);
  const filled = fill();
  shown = filled.catch(() => {}); // who ranks meanwhile means the user whom the form is about to show
  await filled;
}

/** Fill the form with what is live and what the catalogue has, as far as the service lets us know. */
async function fill() {
  await Promise.all([fillFromModels(), fillFromCatalogue()]);
  await showStored();
}

/** Whether somebody has typed into a box, or is about to: what the page put there then would be taken for a part of it. */
const isTaken = input => input.value !== "" || document.activeElement === input;

async function fillFromModels() {
  let models;
  try { models = await get("models", {limit: 1}); } catch (error) {
    if (error.status === 401) $("options").open = true; // where the key goes
    return;
  }
  const live = models.versions.find(version => version.live.includes("stable"));
  $("models").replaceChildren(...Object.entries(models.live).map(([label, version]) =>
    make("option", {value: label, label: `version ${version}`})));
  showFields(models.fields);
  if (!live || isTaken($("items"))) return;
  $("items").value = live.example_items.map(quoted).join(" ");
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
  if (!isTaken($("user")) && !typedValues().size && $("users").firstChild) $("user").value = $("users").firstChild.value;
  await learnTitles(itemIds());
}

/** Learn the titles of items, for the answer. */
export async function learnTitles(ids) {
  const unknown = hasCatalogue ? ids.filter(id => !titles.has(id)) : [];
  while (unknown.length) {
    const some = [];
    for (let left = ASKED_CHARACTERS; unknown.length && some.length < FOUND && (left > 0 || !some.length);) {
      left -= encodeURIComponent(unknown[0]).length + 5;
      some.push(unknown.shift());
    }
    let answer;
    try { answer = await get("catalogue/items", {ids: some, limit: FOUND}); } catch { return; /* ids are shown, and asked for again */ }
    for (const id of some) titles.set(id, {title: "", features: {}});
    learn(answer.entries);
  }
}

function learn(entries) {
  for (const entry of entries) titles.set(entry.id, entry);
}

let userSearches = 0, itemSearches = 0; // a late answer to an earlier search is not shown

async function findUsers() {
  const number = ++userSearches;
  try {
    const {entries} = await get("catalogue/users", {q: $("user").value.trim(), limit: 20});
    if (number !== userSearches) return;
    $("users").replaceChildren(...entries.map(entry => make("option", {
      value: entry.id, label: [entry.title, ...Object.values(entry.features).slice(0, 4)].filter(Boolean).join(" · ")})));
  } catch { /* there is no catalogue of users: ids are typed */ }
}

let found = [];

async function findItems() {
  const [facet, value] = $("facet").value ? JSON.parse($("facet").value) : ["", ""];
  const number = ++itemSearches;
  let answer = {total: 0, entries: []}, problem = "";
  try { answer = await get("catalogue/items", {q: $("search").value, facet, value, limit: FOUND}); } catch (error) { problem = error.message; }
  if (number !== itemSearches) return;
  found = answer.entries;
  learn(found);
  $("found-count").textContent = problem || (answer.total > SHOWN ? `${answer.total.toLocaleString("en")} found, the first:` : `${answer.total} found`);
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
  $("items").value = [...new Set([...itemIds(), ...ids])].map(quoted).join(" ");
  countItems();
}

function countItems() {
  const count = new Set(itemIds()).size;
  $("item-count").textContent = count ? `${count} item${count === 1 ? "" : "s"}` : "item ids, by spaces, commas or lines";
}

function showFields(fields) {
  if (inputs().length) return; // another key was typed: what was changed stays
  const kinds = ["user", "context"].map(entity => [entity, fields.filter(field => field.entity === entity)]).filter(([, some]) => some.length);
  $("features").hidden = !kinds.length;
  $("feature-inputs").replaceChildren(...kinds.map(([entity, some]) =>
    make("fieldset", {}, make("legend", {}, (entity === "user" ? "Of the user" : "Of the context") +
      (some.length > MAX_FIELDS ? `, the first ${MAX_FIELDS} of ${some.length}` : "")),
      ...some.slice(0, MAX_FIELDS).map(field => {
        const input = make("input", {autocomplete: "off", placeholder: entity === "user" && shownUser ? "as stored" : "missing"});
        Object.assign(input.dataset, {entity, field: field.name, type: field.type, stored: ""});
        return make("label", {}, `${field.name} `, input);
      }))));
}

let shown = Promise.resolve();
let readings = 0;
let shownUser = "";

/** Wait until the form is filled, and the features of the user who is typed are shown. */
export const settled = () => shown;

/** Show what the store has of the user; what is typed over it is sent with the request. */
function showStored() {
  shown = readStored(++readings);
  return shown;
}

/** Who ranks waits for the first attempts; where the store is slower than they last, it is asked on beside. */
async function readStored(number) {
  const user = $("user").value.trim();
  if (user !== shownUser) clearStored(user ? "as stored" : "missing"); // at once: another user's features are not his
  shownUser = user;
  if (!user || !hasCatalogue) return;
  for (const wait of READ_AFTER_MS) {
    if (await isRead(user, number, wait)) return;
  }
  readLater(user, number);
}

async function readLater(user, number) {
  for (let wait = READ_AGAIN_MS; !await isRead(user, number, wait); wait = Math.min(2 * wait, MOST_APART_MS));
}

/** Read what the store has of a user after a while; return whether there is nothing left to read. */
async function isRead(user, number, wait) {
  await new Promise(resolve => setTimeout(resolve, wait));
  if (number !== readings) return true; // another user is shown
  try {
    const {features} = await get("catalogue/features", {user_id: user});
    if (number === readings) showStoredValues(features);
  } catch (error) {
    return error.status < 500 && error.status !== TOO_MANY; // typed values are sent all the same
  }
  return true;
}

const userInputs = () => [...inputs()].filter(input => input.dataset.entity === "user");

function clearStored(placeholder) {
  for (const input of userInputs()) {
    input.value = input.dataset.stored = "";
    delete input.dataset.isCut;
    input.placeholder = placeholder;
    mark(input);
  }
}

/** Show stored values, beside those that were typed meanwhile. */
function showStoredValues(features) {
  for (const input of userInputs()) {
    const value = features[input.dataset.field] ?? "";
    const text = value.replace(/[\r\n]/g, ""); // an input cannot hold line ends
    if ([...value].length > MAX_VALUE) input.dataset.isCut = "";
    if (!isChanged(input)) {
      input.value = text;
      if (document.activeElement === input) input.select(); // what is typed next goes before it, and is no part of it
    }
    input.dataset.stored = text;
    input.placeholder = "missing";
    mark(input);
  }
}
