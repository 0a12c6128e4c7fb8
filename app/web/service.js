// Asks the service. The keys that are typed in stay in the page: they are neither stored nor put into addresses.

import {$} from "./dom.js";

/** A path of the service, with parameters; one that is a list is repeated. */
export function address(path, parameters = {}) {
  const query = new URLSearchParams(Object.entries(parameters).flatMap(([name, value]) => [value].flat().map(one => [name, one]))
    .filter(([, value]) => value !== ""));
  return query.size ? `${path}?${query}` : path;
}

function headers() {
  return $("key").value ? {"X-API-Key": $("key").value} : {};
}

/** GET a JSON document; throws an Error that says what the service said. */
export async function get(path, parameters) {
  return (await answered(await fetch(address(path, parameters), {headers: headers()}))).json();
}

export async function getText(path) {
  return (await answered(await fetch(path, {headers: headers()}))).text();
}

/** POST a JSON document; return the answer's, and its headers. */
export async function post(path, body, more = {}) {
  const response = await answered(await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json", ...headers(), ...more}, body: JSON.stringify(body)}));
  return {answer: await response.json(), headers: response.headers};
}

async function answered(response) {
  if (response.ok) return response;
  let problem = {title: response.statusText, detail: ""};
  try { problem = await response.json(); } catch { /* an answer of a proxy, which is no problem document */ }
  const error = new Error([`${response.status} ${problem.title}`, problem.detail].filter(Boolean).join(": "));
  error.status = response.status;
  throw error;
}
