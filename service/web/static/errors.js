// Errors beside the fields that they are about; those of no field on the page at its top.
import { element } from "./api.js";

let marked = [];  // fields that bear an error

// fieldOf: from an error's path, as the API gives it, to the field on the page, or to none.
export function showErrors(error, fieldOf = () => null) {
  clearErrors();
  const homeless = [];
  for (const { path, message } of error.fields?.length ? error.fields : [{ path: null, message: error.message }]) {
    const field = path === null ? null : fieldOf(path);
    if (field) tell(field, inside(field, path, message));
    else homeless.push(path === null ? message : `${path}: ${message}`);
  }
  const place = document.getElementById("error");
  place.hidden = !homeless.length;
  place.textContent = homeless.join("\n");
  if (marked.length) bringTo(marked[0]);
  else place.scrollIntoView({ block: "nearest" });
}

export function clearErrors() {
  for (const field of marked) {
    field.removeAttribute("aria-invalid");
    document.getElementById(field.getAttribute("aria-describedby"))?.remove();
    field.removeAttribute("aria-describedby");
  }
  marked = [];
  document.getElementById("error").hidden = true;
}

// Of a parameter's part ('params.window.0') the part is said too.
function inside(field, path, message) {
  const whole = `params.${field.name}.`;
  return path.startsWith(whole) ? `${path.slice(whole.length)}: ${message}` : message;
}

function tell(field, message) {
  if (!marked.includes(field)) {
    marked.push(field);
    const id = `error-of-${field.id || `parameter-${field.name}`}`;
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", id);
    field.closest("details")?.setAttribute("open", "");
    (field.closest("label") ?? field).after(element("p", { id, className: "error", role: "alert" }, message));
    return;
  }
  document.getElementById(field.getAttribute("aria-describedby")).append(`\n${message}`);
}

function bringTo(field) {
  field.focus({ preventScroll: true });
  (field.closest("label") ?? field).scrollIntoView({ block: "center" });
}
