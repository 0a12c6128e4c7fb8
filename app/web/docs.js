"use strict";
const $ = id => document.getElementById(id);
const make = (tag, text, ...children) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};

function link(ref) {
  const name = ref.split("/").pop(), node = make("a", name);
  node.href = location.href.split("#")[0] + "#" + name;
  node.onclick = () => { $(name).open = true; };
  return node;
}

/* What a value may be, in a few words; other schemas are linked. */
function words(schema) {
  if (!schema || schema === true || !Object.keys(schema).length) return ["anything"];
  if (schema.$ref) return [link(schema.$ref)];
  const options = schema.anyOf || schema.oneOf || schema.allOf;
  if (options) return options.flatMap((option, n) => n ? [" or ", ...words(option)] : words(option));
  if (schema.enum || "const" in schema) return [(schema.enum || [schema.const]).map(value => JSON.stringify(value)).join(", ")];
  if (schema.type === "array") return ["list of ", ...words(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object of ", ...words(schema.additionalProperties)];
  const bounds = [["minLength", "from", "characters"], ["maxLength", "up to", "characters"], ["minimum", "from", ""], ["maximum", "up to", ""],
    ["exclusiveMinimum", "above", ""], ["pattern", "fits", ""]]
    .filter(([key]) => key in schema).map(([key, word, unit]) => `${word} ${schema[key]} ${unit}`.trim());
  return [[[].concat(schema.type || "anything").join(" or "), ...bounds].join(", ")];
}

function table(rows) {
  return make("table", "", ...rows.map(cells => make("tr", "", ...cells.map(cell => make("td", "", ...[].concat(cell))))));
}

function properties(schema) {
  const required = new Set(schema.required || []);
  return table(Object.entries(schema.properties).map(([name, property]) => [
    make("code", name), words(property), [required.has(name) ? "required. " : "", property.description || ""].join("")]));
}

function body(content, heading) {
  return Object.entries(content || {}).flatMap(([type, media]) => [
    make("h3", `${heading}: ${type}`), media.schema?.properties ? properties(media.schema) : make("div", "", ...words(media.schema)),
    ...Object.values(media.examples || {}).map(example => make("pre", JSON.stringify(example.value, null, 1).replace(/\n\s*/g, " ")))]);
}

function operation(path, method, route) {
  const verb = make("span", method.toUpperCase());
  verb.className = "method";
  const keys = (route.security || []).flatMap(Object.keys);
  const node = make("details", "", make("summary", "", verb, make("code", path), make("small", route.summary || "")),
    make("p", route.description || ""));
  if (keys.length) node.append(make("p", `Key: ${[...new Set(keys)].join(" or ")}`));
  if (route.parameters?.length) node.append(make("h3", "Parameters"), table(route.parameters.map(parameter => [
    [make("code", parameter.name), ` in the ${parameter.in}`], words(parameter.schema),
    (parameter.required ? "required. " : "") + (parameter.description || parameter.schema?.description || "")])));
  node.append(...body(route.requestBody?.content, "Body"), make("h3", "Answers"),
    table(Object.entries(route.responses || {}).map(([status, answer]) => [make("code", status), answer.description || "",
      Object.entries(answer.content || {}).flatMap(([type, media]) => [type + " ", ...(media.schema?.$ref ? words(media.schema) : [])])])));
  return node;
}

(async () => {
  try {
    const api = await (await fetch("openapi.json")).json();
    $("title").textContent = api.info.title;
    $("version").textContent = api.info.version;
    $("about").textContent = api.info.description || "";
    for (const [path, routes] of Object.entries(api.paths).sort(([a], [b]) => (b === "/rank") - (a === "/rank")))
      for (const [method, route] of Object.entries(routes)) $("routes").append(operation(path, method, route));
    $("routes").firstChild.open = true;
    $("shapes").hidden = false;
    for (const [name, schema] of Object.entries(api.components.schemas)) {
      const node = make("details", "", make("summary", "", make("code", name)), make("p", schema.description || ""),
        schema.properties ? properties(schema) : make("div", "", ...words(schema)));
      node.id = name;
      if (schema.example) node.append(make("h3", "Example"), make("pre", JSON.stringify(schema.example, null, 1)));
      $("schemas").append(node);
    }
    for (const [name, scheme] of Object.entries(api.components.securitySchemes || {}))
      $("about").append(`\nKey ${name}: ${scheme.name} in the ${scheme.in}. ${scheme.description || ""}`);
  } catch (error) {
    $("error").hidden = false;
    $("error").textContent = `openapi.json cannot be read: ${error.message}`;
  }
})();
