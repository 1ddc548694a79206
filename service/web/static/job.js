// A job's page: progress while it runs, each picture's results as soon as its unit is done.
import { ask, element, ended, showError, timeLeft } from "./api.js";
import { showErrors } from "./errors.js";

const REFRESH_MS = 700;
const PICTURES = 24;  // of a page
const RESULTS_TO_COME = "Each picture's results appear here as soon as they are done.";
const CANCELLED = "It was cancelled. What was finished by then is here; maps that were being made are not kept.";
const byId = (id) => document.getElementById(id);
const jobId = byId("job").dataset.job;
let specs = {};   // results by name, as the job's analysis describes them
let metricSpecs = {};
let results = { metrics: [], artifacts: [], names: [], next_cursor: null };
let version = null;  // of the results shown
let cursors = [null];  // of the pages up to the one shown
let images = [];
let models = [];
let chosen = null;  // name of the result that the reader picked

async function refresh() {
  try {
    const job = await ask(`/v1/jobs/${jobId}`);
    showError(null);
    await showJob(job);
    if (job.results_version !== version) {
      await showResults();
      version = job.results_version;
    }
    if (ended(job) && !job.webhook?.next_at) return;
  } catch (error) {
    showError(error);
    if (error.status === 404) return showNothing();
  }
  setTimeout(refresh, REFRESH_MS);
}

// There is no such job, or no more: nothing to show, nothing to delete.
function showNothing() {
  for (const id of ["job", "drawing", "pictures", "pages", "waiting"]) byId(id).hidden = true;
}

// One page of one kind of result: a job of thousands of pictures is shown as fast as one of two.
async function showResults() {
  const wanted = chosen ?? byId("which").dataset.headline;
  let fresh = await resultsOf(wanted);
  const name = fresh.names.includes(wanted) ? wanted : sorted(fresh.names)[0];
  if (name && name !== wanted) fresh = await resultsOf(name);
  if (ids(fresh) === ids(results)) return;
  results = fresh;
  showChoices(name);
  showPictures();
  showPages();
}

function resultsOf(name) {
  const query = new URLSearchParams({ name, limit: PICTURES });
  if (cursors.at(-1) !== null) query.set("cursor", cursors.at(-1));
  return ask(`/v1/jobs/${jobId}/results?${query}`);
}

function sorted(names) {
  const order = Object.keys(specs);
  const place = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
  return [...names].sort((one, other) => place(one) - place(other));
}

function showPages() {
  const places = results.artifacts.map((a) => images.indexOf(a.image) + 1).filter(Boolean);
  byId("pages").hidden = cursors.length === 1 && results.next_cursor === null;
  byId("previous").disabled = cursors.length === 1;
  byId("next").disabled = results.next_cursor === null;
  byId("place").textContent = places.length
    ? `Pictures ${Math.min(...places)} to ${Math.max(...places)} of ${images.length.toLocaleString()}` : "";
}

async function turn(change) {
  change();
  try { await showResults(); } catch (error) { showErrors(error); }
}

const ids = (found) => found.artifacts.map((artifact) => artifact.id).join();

async function showJob(job) {
  if (!images.length) {
    images = job.images;
    models = job.models;
    const analysis = await ask(`/v1/analyses/${job.analysis}`);
    specs = Object.fromEntries(analysis.results.map((r) => [r.name, r]));
    metricSpecs = Object.fromEntries(analysis.metrics.map((m) => [m.name, m]));
    byId("which").dataset.headline = analysis.headline;
    byId("title").textContent = `${analysis.title} · ${job.models.join(", ")}`;
    byId("params").replaceChildren(...Object.entries(job.params).flatMap(
      ([name, value]) => [element("dt", {}, name), element("dd", {}, JSON.stringify(value))]));
  }
  byId("state").textContent = job.state;
  byId("state").className = `state ${job.state}`;
  byId("progress").max = job.progress.total || 1;
  byId("progress").value = job.progress.done;
  byId("progress").hidden = ended(job);
  byId("waiting").hidden = ended(job) && job.state !== "cancelled";
  byId("waiting").textContent = await whatIsToCome(job);
  byId("cancel").hidden = ended(job);
  byId("left").textContent = timeLeft(job);
  byId("reason").hidden = !job.error;
  byId("reason").textContent = job.error ?? "";
  byId("webhook").hidden = !job.webhook?.state;
  byId("webhook").textContent = job.webhook?.state ? delivery(job.webhook) : "";
}

function delivery(webhook) {
  const attempts = webhook.attempts === 1 ? "once" : `${webhook.attempts} times`;
  if (webhook.state === "delivered") return `${webhook.url} was told: it answered ${webhook.status}.`;
  if (webhook.state === "given_up") return `${webhook.url} was not told, tried ${attempts}: ${webhook.error}.`;
  if (!webhook.attempts) return `${webhook.url} is about to be told.`;
  const next = new Date(webhook.next_at).toLocaleTimeString();
  return `${webhook.url} was not told yet, tried ${attempts}: ${webhook.error ?? "no answer yet"}. Next at ${next}.`;
}

async function whatIsToCome(job) {
  if (job.state === "cancelled") return CANCELLED;
  return job.state === "queued" ? whyItWaits() : RESULTS_TO_COME;
}

async function whyItWaits() {
  const { database, broker, workers } = await (await fetch("/readyz")).json();  // 503 has them too
  if (!database || !broker) return "It waits: a server is out of reach. It runs by itself as soon as that is back.";
  if (!workers) return "It waits: no worker is there. It runs by itself as soon as one is.";
  return "It waits for a worker: what came before it runs first.";
}

function showChoices(shown) {
  byId("which").replaceChildren(...sorted(results.names).map(
    (name) => element("option", { value: name, selected: name === shown }, titled(name))));
  byId("drawing").hidden = !results.names.length;
}

function showPictures() {
  const name = byId("which").value;
  byId("meaning").textContent = specs[name]?.description ?? "";
  const shown = results.artifacts.filter((a) => a.name === name).sort(sideBySide);
  const onPicture = shown.some((a) => a.on_picture);
  for (const id of ["overlay", "alpha", "colormap"]) byId(id).disabled = !onPicture;
  byId("alpha").disabled ||= !byId("overlay").checked;
  byId("pictures").replaceChildren(...shown.map(card));
}

// What several models gave for one picture stands together, their comparison last; otherwise as it came.
function sideBySide(one, other) {
  if (models.length < 2) return 0;
  const place = (a) => (a.model === null ? models.length : models.indexOf(a.model));
  return images.indexOf(one.image) - images.indexOf(other.image)
    || ownVariant(one).localeCompare(ownVariant(other)) || place(one) - place(other);
}

const shownVariant = (a) => Object.values(a.variant).join(" · ");
const ownVariant = (a) => Object.entries(a.variant).filter(([name]) => name !== "compared").map(([, value]) => value).join("\n");

const titled = (name) => specs[name]?.title ?? name.replaceAll("_", " ");

function card(artifact) {
  const number = images.indexOf(artifact.image) + 1;
  const model = models.length > 1 ? artifact.model : null;
  const title = [titled(artifact.name), model, shownVariant(artifact)].filter(Boolean).join(" · ");
  return element("section", { className: artifact.preview ? "card preview" : "card" },
    element("h1", {}, number ? `Picture ${number}: ${title}` : title),
    element("img", { src: drawn(artifact), alt: title, loading: "lazy" }),
    artifact.preview ? element("p", {}, "So far: what is blank is still to come.") : metrics(artifact), downloads(artifact));
}

function drawn(artifact) {
  const query = new URLSearchParams({ format: "png" });
  if (artifact.on_picture) {
    if (byId("overlay").checked) { query.set("overlay", "1"); query.set("alpha", byId("alpha").value); }
    if (byId("colormap").value) query.set("colormap", byId("colormap").value);
  }
  return `${artifact.href}?${query}`;
}

// A number belongs to every result that has all parts of the number's variant: a size's to all of its targets' maps.
function metrics(artifact) {
  const own = (m) => m.image === artifact.image && m.model === artifact.model && isPart(m.variant, artifact.variant);
  return element("dl", {}, ...results.metrics.filter(own).flatMap((m) => [
    element("dt", { title: metricSpecs[m.name]?.description ?? "" }, metricSpecs[m.name]?.title ?? m.name),
    element("dd", {}, `${Number(m.value.toPrecision(4)).toLocaleString(undefined, { maximumFractionDigits: 6 })} ${m.unit ?? ""}`)]));
}

function isPart(some, all) {
  return Object.entries(some).every(([name, value]) => Object.hasOwn(all, name) && all[name] === value);
}

function downloads(artifact) {
  return element("p", { className: "downloads" }, "Download: ", ...artifact.formats.map(
    (format) => element("a", { href: `${artifact.href}?format=${format}`, download: "" }, format.toUpperCase())));
}

async function cancel() {
  try { await ask(`/v1/jobs/${jobId}/cancel`, { method: "POST" }); } catch (error) { showErrors(error); }
}

async function remove() {
  if (!confirm("Delete this job and its results?")) return;
  try {
    await ask(`/v1/jobs/${jobId}`, { method: "DELETE" });
    location.assign("/");
  } catch (error) { showErrors(error); }
}

byId("cancel").addEventListener("click", cancel);
byId("delete").addEventListener("click", remove);
byId("which").addEventListener("change", () => turn(() => { chosen = byId("which").value; cursors = [null]; }));
byId("previous").addEventListener("click", () => turn(() => cursors.pop()));
byId("next").addEventListener("click", () => turn(() => cursors.push(results.next_cursor)));
for (const id of ["overlay", "alpha", "colormap"]) byId(id).addEventListener("change", showPictures);
refresh();
