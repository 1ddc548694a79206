// The few calls that the pages make, and how they tell of errors.

export async function ask(path, options = {}) {
  const response = await fetch(path, options);
  if (response.ok) return response.status === 204 ? null : response.json();
  if (response.status === 401) askForKey();
  let text = `The service answered ${response.status}.`;
  let fields = [];
  try {
    const problem = await response.json();
    text = [problem.detail, ...problem.errors.map((e) => `${e.path}: ${e.message}`)].join("\n");
    fields = problem.errors;
  } catch { /* no problem document: the status must do */ }
  throw Object.assign(new Error(text), { fields, status: response.status });
}

function askForKey() {
  const dialog = document.getElementById("sign-in");
  if (!dialog.open) dialog.showModal();
}

export function showError(error) {
  const place = document.getElementById("error");
  place.hidden = !error;
  place.textContent = error ? error.message : "";
}

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made) made[name] = value; else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export function timeLeft(job) {
  const { done, total, eta_seconds: eta } = job.progress;
  const steps = `${done.toLocaleString()} of ${total.toLocaleString()}`;
  if (job.finished_at && !job.started_at) return steps;
  if (job.finished_at) {
    const seconds = (new Date(job.finished_at) - new Date(job.started_at)) / 1000;
    return `${steps} in ${seconds.toFixed(1)} s`;
  }
  return eta === null ? steps : `${steps}, ${duration(eta)} left`;
}

export const ended = (job) => job.finished_at !== null;

function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
