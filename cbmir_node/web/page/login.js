// Logging in, and going back to where the login was asked for.

import { byId, element } from "./elements.js";

const form = byId("login");
const { name, password } = form.elements;

/**
 * Where `?next=` leads, when that is a page of this node; else the search page.
 *
 * The comparison is of parsed origins: "//elsewhere", "\\elsewhere" and "javascript:" all parse to
 * another one; a "blob:" has that of who made it, but not the scheme.
 */
export function nextPage(search, here) {
  const start = new URL("./", here);
  let asked;
  try {
    asked = new URL(new URLSearchParams(search).get("next") ?? "", start);
  } catch {
    return start.href;
  }
  const own = asked.origin === start.origin && asked.protocol === start.protocol;
  const inside = own && !asked.pathname.endsWith("/login");
  return inside ? asked.href : start.href;
}

function say(text, kind = "bad") {
  byId("message").replaceChildren(
    element("div", { class: `message ${kind}` }, element("span", {}, text)),
  );
}

function markWrong(...fields) {
  for (const field of [name, password]) {
    if (fields.includes(field)) field.setAttribute("aria-invalid", "true");
    else field.removeAttribute("aria-invalid");
  }
  fields[0]?.focus();
}

async function refusal(response) {
  const told = await response.json().catch(() => ({}));
  if (response.status === 401) return "Name and password do not belong together. Try again.";
  return told.detail || told.title || `The node answered with status ${response.status}.`;
}

async function logIn() {
  const missing = [name, password].filter((field) => !field.value);
  markWrong(...missing);
  if (missing.length) {
    say(missing.length === 2 ? "Enter name and password." : `Enter the ${missing[0].name}.`);
    return;
  }
  byId("submit").disabled = true;
  byId("submit").textContent = "Logging in…";
  try {
    const response = await fetch("login", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ name: name.value, password: password.value }),
      credentials: "same-origin",
    });
    if (response.ok) {
      location.replace(nextPage(location.search, location.href));
      return;
    }
    say(await refusal(response));
    password.value = "";
    markWrong(password, ...(response.status === 401 ? [name] : []));
  } catch {
    say("The node does not answer. Check the network and whether it is running, then try again.");
  }
  byId("submit").disabled = false;
  byId("submit").textContent = "Log in";
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn();
});
byId("submit").disabled = false; // until here the browser would have sent the form by itself

// Nobody should type a password into a node that asks for none.
const response = await fetch("api/node", { credentials: "same-origin" }).catch(() => null);
if (response?.ok) {
  const node = await response.json();
  const who = node.login_required ? `You are logged in as ${node.user?.name}.` : "No login is needed here.";
  const link = element("a", { href: nextPage(location.search, location.href) }, "Go on");
  byId("message").replaceChildren(
    element("div", { class: "message" }, element("span", {}, who, " ", link)),
  );
}
