// The view of the model store: what each version is, what the gate found, and who may, promotes and rolls back.

import {$, make, showProblem} from "./dom.js";
import {get, getText, post} from "./service.js";

const SHOWN_METRICS = ["auc", "gauc", "log_loss", "calibration_error", "predicted_over_observed"];
const LISTED = 20;

export function startVersions() {
  $("admin").hidden = !("admin" in document.documentElement.dataset);
  $("admin").addEventListener("submit", event => event.preventDefault());
  $("rollback").addEventListener("click", () => act("rollback", undefined));
}

export async function showVersions() {
  try {
    const models = await get("models", {limit: LISTED});
    $("version-list").replaceChildren(...models.versions.map(version => card(version, models)));
    showProblem($("versions-error"), models.error ?? "");
  } catch (error) {
    showProblem($("versions-error"), error.message);
  }
}

function card(version, models) {
  const labels = [...new Set([...version.labels, ...version.live])];
  const metrics = version.metrics.test ?? version.metrics;
  const facts = [["made", version.created_at?.replace("T", " ").slice(0, 16)], ["trained on", version.dataset],
    ...SHOWN_METRICS.filter(name => Number.isFinite(metrics[name])).map(name => [name.replaceAll("_", " "), metrics[name].toFixed(4)])]
    .filter(([, value]) => value);
  const seen = models.watched.filter(watched => watched.version === version.version)
    .map(watched => `${watched.label}: ${watched.requests.toLocaleString("en")} requests, ${watched.errors} failed` +
      (watched.scores ? `, mean score ${watched.scores.mean}` : ""));
  const buttons = [make("a", {href: `models/${version.version}/report`, target: "_blank"}, "Report of its training")];
  buttons[0].addEventListener("click", event => { if ($("key").value) { event.preventDefault(); download(version.version); } });
  if (!$("admin").hidden && !version.live.includes("stable") && !version.error) {
    const promote = make("button", {type: "button", class: "quiet"}, `Promote ${version.version}`);
    promote.addEventListener("click", () => act("promote", version.version));
    buttons.push(promote);
  }
  return make("article", {class: "version", "aria-label": `Version ${version.version}`},
    make("h3", {}, `Version ${version.version} `, make("small", {}, version.architecture ?? ""), " ",
      ...labels.map(label => make("span", {class: "badge"}, label))),
    ...(version.error ? [make("p", {class: "error"}, version.error)] : []),
    make("dl", {}, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), " ", make("dd", {}, value)))),
    ...seen.map(text => make("p", {class: "note"}, text)),
    ...gate(version.gate),
    make("p", {class: "actions"}, ...buttons));
}

/** What the gate found; the checks that failed are open to see. */
function gate(report) {
  if (!report) return [make("p", {class: "note"}, "The gate has not judged it yet.")];
  const failed = report.checks.filter(check => !check.passed);
  const names = failed.map(check => check.name).join(", ");
  const refused = report.passed ? `Forced past the gate, which refused it: ${names}` : `The gate refused it: ${names}`;
  const text = failed.length ? refused : `Passed the gate's ${report.checks.length} checks`;
  return [make("details", {open: failed.length > 0}, make("summary", {}, text), make("ul", {}, ...report.checks.map(check =>
    make("li", {class: check.passed ? "" : "error"}, `${check.passed ? "✓" : "✗"} ${check.name}${check.detail ? `: ${check.detail}` : ""}`))))];
}

/** With a key a link will not do, and what a script makes has the page's policy, which allows no style. */
async function download(version) {
  try {
    const page = new Blob([await getText(`models/${version}/report`)], {type: "text/html"});
    const link = make("a", {href: URL.createObjectURL(page), download: `version-${version}.html`});
    link.click();
    URL.revokeObjectURL(link.href);
  } catch (error) {
    showProblem($("versions-error"), error.message);
  }
}

let acting = false;

async function act(action, version) {
  if (acting) return;
  acting = true;
  $("versions-done").textContent = action === "promote" ? `The gate looks at version ${version}…` : "rolling back…";
  try {
    const {answer} = await post(`admin/${action}`, version === undefined ? {} : {version}, {"X-Admin-Key": $("admin-key").value});
    $("versions-done").textContent = `Version ${answer.version} is stable; processes take it over within a second or two.`;
    showProblem($("versions-error"), "");
    setTimeout(showVersions, 1500);
  } catch (error) {
    $("versions-done").textContent = "";
    showProblem($("versions-error"), error.message);
  }
  acting = false;
}
