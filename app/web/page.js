// Shows one of the views, by the part of the address behind #, and the health of the service above all of them.

import {$} from "./dom.js";
import {startCompare, showCompare} from "./compare.js";
import {startLive, showLive} from "./live.js";
import {startRank} from "./rank.js";
import {startVersions, showVersions} from "./versions.js";

const VIEWS = {rank: () => {}, compare: showCompare, versions: showVersions, live: showLive};
const HEALTH_MS = 5000;

function showView() {
  const wanted = location.hash.slice(1);
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "rank";
  for (const view of Object.keys(VIEWS)) $(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav a[href^='#']")) {
    if (link.getAttribute("href") === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  VIEWS[name]();
}

async function showHealth() {
  const [dot, text] = $("health").children;
  let state = "unavailable", words = "the service does not answer";
  try {
    const health = await (await fetch("health")).json();
    const live = health.model.version === null ? "no model live" : `${health.model.name} version ${health.model.version}`;
    [state, words] = [health.status, [health.status, live, ...health.reasons].join(" · ")];
  } catch { /* said by the words */ }
  dot.className = `dot ${state}`;
  if (text.textContent !== words) text.textContent = words;
}

// A `<base>`, of a sub-path, would make a link to #live one to the sub-path's page.
for (const link of document.querySelectorAll("a[href^='#']")) {
  link.addEventListener("click", event => {
    event.preventDefault();
    location.hash = link.getAttribute("href");
  });
}
window.addEventListener("hashchange", showView);
startRank();
startCompare();
startVersions();
startLive();
showView();
showHealth();
setInterval(showHealth, HEALTH_MS);
