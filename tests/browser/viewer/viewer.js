// Shows a study of a node: dwv retrieves and draws it, whole as multipart/related, or the instances
// that QIDO-RS names one by one.
// ?node=http://127.0.0.1:8080&study=1.2.3&accept=multipart/related

import { App, AppOptions, ViewConfig } from "./node_modules/dwv/dist/dwv.min.js";

const asked = new URLSearchParams(location.search);
const root = `${asked.get("node")}/dicom-web`;
const state = document.getElementById("state");

const response = await fetch(`${root}/studies/${asked.get("study")}/instances`, {
  headers: { Accept: "application/dicom+json" },
});
const instances = await response.json();
const addresses = instances.map((instance) => {
  const [study, series, image] = ["0020000D", "0020000E", "00080018"].map((tag) => instance[tag].Value[0]);
  return `${root}/studies/${study}/series/${series}/instances/${image}`;
});

const accept = asked.get("accept");

const app = new App();
app.init(new AppOptions({ "*": [new ViewConfig("layers")] }));
const errors = [];
app.addEventListener("error", (event) => errors.push(String(event.error ?? event)));
app.addEventListener("loadend", () => {
  const slices = app.getImage(app.getDataIds()[0])?.getGeometry().getSize().get(2);
  state.textContent = errors.length ? `failed: ${errors}` : `loaded ${slices}`;
});
const whole = accept.startsWith("multipart/");
app.loadURLs(whole ? [`${root}/studies/${asked.get("study")}`] : addresses, {
  requestHeaders: [{ name: "Accept", value: accept }],
});
