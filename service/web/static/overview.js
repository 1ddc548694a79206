// The overview: a form made from the analyses' own JSON Schemas, and the latest jobs.
import { ask, ended, element, showError, timeLeft } from "./api.js";
import { clearErrors, showErrors } from "./errors.js";

const REFRESH_MS = 1500;
const byId = (id) => document.getElementById(id);
let analyses = [];

async function start() {
  const [known, models] = await Promise.all([ask("/v1/analyses"), ask("/v1/models")]);
  analyses = known.analyses;
  byId("analysis").append(...analyses.map((a) => element("option", { value: a.name }, a.title)));
  byId("models").append(...models.models.map((m) => element("option", { value: m.name }, m.source)));
  byId("model").value = models.models[0].name;
  showParameters();
}

function chosen() { return analyses.find((a) => a.name === byId("analysis").value); }

function showParameters() {
  clearErrors();
  byId("summary").textContent = chosen().summary;
  byId("parameters").replaceChildren(...Object.entries(chosen().parameters.properties).map(
    ([name, schema]) => element("label", {}, schema.title ?? name, field(name, schema),
      element("small", {}, schema.description ?? ""))));
}

function field(name, schema) {
  const choices = schema.enum ?? (schema.const === undefined ? null : [schema.const]);
  const normal = schema.default === undefined || schema.default === null ? "" : asText(schema.default);
  if (!choices) return element("input", { name, placeholder: normal });
  const options = choices.map((choice) => element("option", { value: choice, selected: choice === schema.default }, choice));
  return element("select", { name }, ...options);
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

function parameters() {
  const given = [...byId("parameters").querySelectorAll("input, select")].filter((input) => input.value !== "");
  return Object.fromEntries(given.map((input) => [input.name, fromText(input.value)]));
}

function fromText(text) { try { return JSON.parse(text); } catch { return text; } }

async function upload(file) {
  const form = new FormData();
  form.append("file", file);
  try { return (await ask("/v1/images", { method: "POST", body: form })).id; }
  catch (error) {
    const said = error.fields?.length ? error.fields.map((e) => e.message).join("; ") : error.message;
    throw aboutPictures(`${file.name}: ${said}`);
  }
}

const aboutPictures = (message) => Object.assign(new Error(message), { fields: [{ path: "images", message }] });

// The field on the page for a field of the request.
function fieldOf(path) {
  const [first, name] = path.split(".");
  if (first === "params") return name ? byId("parameters").querySelector(`[name="${CSS.escape(name)}"]`) : null;
  return { analysis: byId("analysis"), model: byId("model"), models: byId("model"), images: byId("files") }[first] ?? null;
}

async function submit(event) {
  event.preventDefault();
  const button = event.submitter ?? byId("form").querySelector("button");
  button.disabled = true;
  clearErrors();
  try {
    const files = [...byId("files").files];
    if (!files.length) throw aboutPictures("Choose at least one picture.");
    const images = [];
    for (const file of files) images.push(await upload(file));
    const names = byId("model").value.split(",").map((name) => name.trim()).filter(Boolean);
    const which = names.length > 1 ? { models: names } : { model: names[0] ?? "" };
    const request = { analysis: chosen().name, ...which, images, params: parameters(), priority: "interactive" };
    const job = await ask("/v1/jobs", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(request),
    });
    location.assign(`/jobs/${job.id}`);
  } catch (error) { showErrors(error, fieldOf); }
  button.disabled = false;
}

function showThumbnails() {
  byId("thumbnails").replaceChildren(...[...byId("files").files].slice(0, 12).map(
    (file) => element("img", {
      src: URL.createObjectURL(file), alt: file.name, title: file.name,
      onerror() { this.remove(); },  // no picture, or of a kind that this browser does not draw
    })));
}

async function refresh() {
  try {
    const { jobs } = await ask("/v1/jobs?limit=30");
    byId("none").hidden = jobs.length > 0;
    byId("jobs").hidden = !jobs.length;
    byId("jobs").tBodies[0].replaceChildren(...jobs.map(row));
  } catch (error) { showError(error); }
  setTimeout(refresh, REFRESH_MS);
}

function row(job) {
  const bar = ended(job) ? "" : element("progress", { max: job.progress.total || 1, value: job.progress.done });
  return element("tr", {},
    element("td", {}, element("a", { href: `/jobs/${job.id}` }, new Date(job.created_at).toLocaleString())),
    element("td", {}, element("span", { className: `state ${job.state}`, title: job.error ?? "" }, job.state)),
    element("td", {}, job.analysis), element("td", {}, job.models.join(", ")),
    element("td", {}, bar, " ", timeLeft(job)));
}

byId("form").addEventListener("submit", submit);
byId("analysis").addEventListener("change", showParameters);
byId("files").addEventListener("change", showThumbnails);
for (const name of ["dragover", "dragleave", "drop"]) {
  byId("drop").addEventListener(name, (event) => {
    event.preventDefault();
    byId("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") { byId("files").files = event.dataTransfer.files; showThumbnails(); }
  });
}
start().catch(showError);
refresh();
