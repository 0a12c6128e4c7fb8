// Makes and finds the nodes of the page.

export const $ = id => document.getElementById(id);

/** Make an element: properties are set on it, `class` and `aria-…` as attributes; children are nodes or text. */
export function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "class" || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
}

/** A bar of a share of its place, 0 to 1. */
export function bar(share, className = "bar") {
  const node = make("div", {class: className});
  node.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  return node;
}

/** A bar to the right of the middle above 0, to the left of it below; `most` is the length of half. */
export function divergingBar(value, most) {
  const node = bar(Math.abs(value) / most / 2, value < 0 ? "part below" : "part above");
  const place = make("div", {class: "middle"}, node);
  if (value < 0) node.style.marginLeft = `${50 - 50 * Math.min(1, Math.abs(value) / most)}%`;
  return place;
}

export function showProblem(node, problem) {
  node.textContent = problem;
  node.hidden = !problem;
}

/** Call `act` once nobody has called for so many milliseconds. */
export function debounced(act, milliseconds) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(act, milliseconds);
  };
}

export const percent = share => `${(100 * share).toFixed(share < 0.1 ? 2 : 1)} %`;
export const signed = (value, digits) => (value > 0 ? "+" : value < 0 ? "−" : "±") + Math.abs(value).toFixed(digits);
