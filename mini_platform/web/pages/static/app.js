// Enhancements of the pages: drawing charts, refreshing live regions, and uploading dropped files.
// Every page works without this script: charts are then tables, and forms are plain forms.
"use strict";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const announce = (text) => { document.getElementById("live").textContent = text; };

// Charts: figures are JSON in the page; their colours are names of CSS variables, so that they follow the theme.
// No other text is changed, as values of rows may look like such a name.
const themed = (value, style, key = "") => {
  if (typeof value === "string" && key.endsWith("color")) {
    const name = /^var\((--[\w-]+)\)$/.exec(value);
    return name ? style.getPropertyValue(name[1]).trim() : value;
  }
  if (Array.isArray(value)) return value.map((item) => themed(item, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, themed(item, style, name)]));
  }
  return value;
};

const draw = (plot) => {
  const figure = JSON.parse(document.getElementById(plot.dataset.chart).textContent);
  const { data, layout } = themed(figure, getComputedStyle(document.documentElement));
  const options = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
  plot.querySelector(".waiting")?.remove();
  if (plot.clientWidth < 520) {
    layout.margin = { ...layout.margin, l: 42, r: 6 };
  }
  layout.width = matchMedia("print").matches ? plot.clientWidth : undefined;
  Plotly.react(plot, data, layout, options).then(() => { plot.dataset.drawn = "true"; });
};

const drawAll = () => { if (window.Plotly) document.querySelectorAll("[data-chart]").forEach(draw); };
// Print uses the light theme and a narrower page.
for (const medium of ["(prefers-color-scheme: dark)", "print"]) matchMedia(medium).addEventListener("change", drawAll);

// Live regions: poll a short state; if it has changed, fetch the page and replace the regions that differ.
const EVERY = 3000;
const OLD = 60000;
let state = document.body.dataset.state;
let refreshed = Date.now();

const refresh = async () => {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  refreshed = Date.now();
  for (const region of document.querySelectorAll("[data-live][id]")) {
    const next = fresh.getElementById(region.id);
    // A region that has the focus is not replaced.
    if (!next || region.innerHTML === next.innerHTML || region.contains(document.activeElement)) continue;
    region.innerHTML = next.innerHTML;
  }
  for (const plot of document.querySelectorAll("[data-chart]")) {
    const [shown, next] = [document, fresh].map((page) => page.getElementById(plot.dataset.chart));
    if (!next || shown.textContent === next.textContent) continue;
    shown.textContent = next.textContent;
    for (const part of ["figcaption", "table"]) {
      plot.closest("figure").querySelector(part).innerHTML = next.closest("figure").querySelector(part).innerHTML;
    }
    draw(plot);
  }
  document.body.dataset.refreshed = new Date().toISOString();
};

const poll = async () => {
  if (document.hidden) return;
  const answer = await fetch("/state");
  if (!answer.ok) return;
  const current = (await answer.json()).state;
  if (current !== state || Date.now() - refreshed > OLD) {
    if (current !== state) announce("Updated.");
    state = current;
    await refresh();
  }
};

const keepPolling = () => {
  let away = 0;
  const next = () => setTimeout(async () => {
    try { await poll(); away = 0; } catch { away += 1; }
    next();
  }, EVERY * Math.min(2 ** away, 20));
  next();
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll().catch(() => {}); });
};

// Upload: send each file with a progress bar, then poll its ledger entry until its status is final.
const SETTLED = new Set(["loaded", "refused", "failed", "unchanged"]);

const item = (list, name) => {
  const row = document.createElement("li");
  const title = document.createElement("strong");
  const words = document.createElement("span");
  const bar = document.createElement("progress");
  title.textContent = name;
  bar.max = 1;
  bar.setAttribute("aria-label", `Upload of ${name}`);
  row.append(title, words, bar);
  list.append(row);
  return { row, title, words, bar };
};

const outcome = (file) => {
  if (file.error) return `${file.status}: ${file.error}`;
  if (file.status === "unchanged") return "unchanged: identical to the loaded version";
  if (file.status !== "loaded") return file.status === "staged" ? "pending: validated, about to be published …" : "pending: waiting for a run …";
  const parts = ["inserted", "updated", "unchanged", "superseded", "rejected"]
    .map((part) => [part, file[`rows_${part}`]]).filter(([, count]) => count);
  return `${file.rows_rejected ? "loaded with rejects" : "loaded"}: ${parts.map(([part, count]) => `${count.toLocaleString("en")} ${part}`).join(", ") || "no rows"}`;
};

const send = (form, dataset, file, shown) => new Promise((resolve, reject) => {
  const request = new XMLHttpRequest();
  request.open("POST", `/api/datasets/${encodeURIComponent(dataset)}/files/`);
  request.setRequestHeader("Accept", "application/json");
  request.upload.onprogress = (event) => {
    if (!event.lengthComputable) return;
    shown.bar.value = event.loaded / event.total;
    shown.words.textContent = `${Math.round(event.loaded / event.total * 100)}% sent`;
  };
  request.onload = () => {
    let body = {};
    try { body = JSON.parse(request.responseText); } catch { /* A response that is not JSON has no detail. */ }
    if (request.status < 300) resolve(body);
    else reject(new Error(body.detail || `The server responded with ${request.status}.`));
  };
  request.onerror = () => reject(new Error("The connection was lost; upload the file again."));
  const formData = new FormData();
  formData.append("file", file);
  request.send(formData);
});

const settle = async (url, shown) => {
  shown.bar.removeAttribute("value");
  for (;;) {
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    if (answer.ok) {
      const file = await answer.json();
      file.summary = outcome(file);
      shown.words.textContent = file.summary;
      if (SETTLED.has(file.status)) return file;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
};

const take = async (form, file) => {
  const dataset = form.querySelector("[name=dataset]").value;
  const shown = item(form.querySelector(".uploads"), file.name);
  try {
    const landed = await send(form, dataset, file, shown);
    const link = document.createElement("a");
    link.href = `/files/${landed.file_id}`;
    link.textContent = file.name;
    shown.title.replaceChildren(link);
    const done = await settle(landed.url, shown);
    shown.row.dataset.status = done.status;
    announce(`${file.name}: ${done.summary}`);
  } catch (error) {
    shown.row.dataset.status = "error";
    shown.words.textContent = error.message;
    announce(`${file.name}: ${error.message}`);
  }
  shown.bar.remove();
};

const takeFiles = async (form, files) => {
  for (const file of files) await take(form, file);
  refresh().catch(() => {});
};

for (const form of document.querySelectorAll("form.drop")) {
  const input = form.querySelector("input[type=file]");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    takeFiles(form, [...input.files]).then(() => { input.value = ""; });
  });
  const over = (on) => (event) => { event.preventDefault(); form.classList.toggle("over", on); };
  form.addEventListener("dragover", over(true));
  form.addEventListener("dragleave", over(false));
  form.addEventListener("drop", (event) => {
    over(false)(event);
    takeFiles(form, [...event.dataTransfer.files]);
  });
}

// A selection submits the form at once; the button is for keyboards and browsers without scripts.
for (const select of document.querySelectorAll("select[data-submit]")) {
  select.addEventListener("change", () => select.form.requestSubmit());
}

// On a phone the navigation is one line: scroll to the current page.
const open = document.querySelector("nav [aria-current]");
if (open) open.closest("nav").scrollLeft = open.offsetLeft - 40;

drawAll();
if (state) keepPolling();
document.body.dataset.ready = "true";
