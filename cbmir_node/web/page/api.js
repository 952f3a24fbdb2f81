// Every call to the node: one error, one way to the login page, one token against forged requests.

/** What the node answered instead (RFC 9457); `detail` tells the user what to do. */
export class Problem extends Error {
  /**
   * @param {number} status HTTP status; 0 when the node could not be reached
   * @param {string} title
   * @param {string} detail
   * @param {string} [field] the parameter that was wrong
   */
  constructor(status, title, detail, field = "") {
    super(detail || title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.field = field;
  }
}

let csrfToken = null;

/** Remember the token of the session; `/api/node` tells it. */
export function rememberCsrfToken(token) {
  csrfToken = token;
}

/** Go to the login page and come back here afterwards. */
export function goToLogin() {
  const here = location.pathname + location.search;
  location.assign(`login?next=${encodeURIComponent(here)}`);
}

async function problemOf(response) {
  let told = {};
  if ((response.headers.get("Content-Type") ?? "").includes("json")) {
    told = await response.json().catch(() => ({}));
  }
  const title = told.title || response.statusText || `Status ${response.status}`;
  return new Problem(response.status, title, told.detail ?? "", told.field ?? "");
}

/**
 * Fetch from the node; paths are relative, so that a proxy may serve it below a folder.
 *
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>} of a success; anything else is thrown
 * @throws {Problem} what the node said; an aborted request throws `AbortError` as ever
 */
export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  if (csrfToken && options.method && options.method !== "GET") {
    headers.set("X-CSRF-Token", csrfToken);
  }
  let response;
  try {
    response = await fetch(path, { ...options, headers, credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(
      0,
      "The node does not answer",
      "Check the network and whether the node is running, then try again.",
    );
  }
  if (response.status === 401) {
    goToLogin();
    throw new Problem(401, "Log in first", "You are being taken to the login page.");
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

/** GET JSON; `null` for an empty answer (204). */
export async function getJson(path, options = {}) {
  const response = await call(path, options);
  return response.status === 204 ? null : response.json();
}

/** POST JSON and return the JSON of the answer; `null` for an empty one. */
export async function postJson(path, body, options = {}) {
  const response = await call(path, {
    ...options,
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  return response.status === 204 ? null : response.json();
}

/** What the page has to know of the node; remembers the session's token. */
export async function getNode() {
  const node = await getJson("api/node");
  rememberCsrfToken(node.csrf_token);
  return node;
}
