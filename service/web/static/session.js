// Signing in with a key, and out, where the service asks for keys.
import { ask, showError } from "./api.js";

const byId = (id) => document.getElementById(id);

async function showOwner() {
  try {
    const { owner } = await ask("/v1/session");
    byId("owner").textContent = owner;
    byId("signed-in").hidden = !owner;
  } catch (error) { showError(error); }
}

async function signIn(event) {
  event.preventDefault();
  byId("refused").hidden = true;
  try {
    await ask("/v1/session", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key: byId("key").value.trim() }),
    });
    location.reload();
  } catch (error) {
    byId("refused").hidden = false;
    byId("refused").textContent = error.message.split("\n").at(-1);  // the field's own words
  }
}

async function signOut() {
  try {
    await ask("/v1/session", { method: "DELETE" });
    location.assign("/");
  } catch (error) { showError(error); }
}

byId("sign-in-form").addEventListener("submit", signIn);
byId("sign-in").addEventListener("cancel", (event) => event.preventDefault());  // there is nothing behind it to see
byId("sign-out").addEventListener("click", signOut);
showOwner();
