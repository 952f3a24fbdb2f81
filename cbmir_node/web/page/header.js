// The bar at the top, the same on every page.

import { call, goToLogin } from "./api.js";

/**
 * Show who is logged in, which network compares, and the pages that this caller may open.
 *
 * @param {object} node the answer of `GET /api/node`
 */
export function fillHeader(node) {
  const byId = (id) => document.getElementById(id);
  const model = byId("model");
  if (model) {
    model.textContent = node.model ? `${node.model.name} ${node.model.version}` : "no model";
    model.hidden = false;
  }
  const rights = node.user?.rights ?? [];
  const link = byId("administration-link");
  if (link) link.hidden = Boolean(node.user) && !rights.includes("administer");

  const user = byId("user");
  if (user && node.user && node.login_required) user.textContent = node.user.name;
  const logOut = byId("log-out");
  if (logOut) {
    logOut.hidden = !(node.login_required && node.user);
    logOut.addEventListener("click", async () => {
      await call("logout", { method: "POST" });
      goToLogin();
    });
  }
}
