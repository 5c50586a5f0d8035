// Which view is shown, and the round in which it asks what has changed.

import { h } from "./dom.js";
import { ExperimentView } from "./experiment.js";
import { ListView } from "./list.js";
import { TrialView } from "./trial.js";

const INTERVAL_MS = 1000;
const AFTER_TROUBLE_MS = 3000;

const [main, path, live, trouble] = ["main", "path", "live", "trouble"].map((id) => document.getElementById(id));
const kept = new Map();  // what an experiment's view knows, for when one comes back to it
const scrolls = new Map();
let view = null;
let shown = "";
let timer = 0;

function route() {
  const [, kind, name] = location.hash.split("/");
  return [kind ?? "", name ? decodeURIComponent(name) : ""];
}

function crumbs(kind, name, experiment) {
  const place = (text, href) => ["/ ", href ? h("a", { href }, text) : text, " "];
  if (kind === "experiment") path.replaceChildren(...place(name));
  else if (kind === "trial") {
    const above = experiment ? place(experiment, `#/experiment/${encodeURIComponent(experiment)}`) : [];
    path.replaceChildren(...above, ...place(name));
  } else path.replaceChildren();
  document.title = name || "katib-callbacks";
}

function open() {
  const [kind, name] = route();
  if (view) scrolls.set(shown, scrollY);
  view?.close();
  shown = location.hash;
  if (kind === "experiment") {
    if (!kept.has(name)) kept.set(name, {});
    view = new ExperimentView(name, kept.get(name));
  } else view = kind === "trial" ? new TrialView(name) : new ListView();
  main.replaceChildren(view.element);
  crumbs(kind, name);
  view.isNew = true;
  round();
}

async function round() {
  clearTimeout(timer);
  const asked = view;
  if (asked.isAsking) return;  // it goes on by itself
  asked.isAsking = true;
  let wait = INTERVAL_MS;
  try {
    await asked.refresh();
    if (asked !== view) return;
    trouble.hidden = true;
    live.textContent = "live";
    if (asked.isNew) {
      asked.isNew = false;
      const [kind, name] = route();
      crumbs(kind, name, asked.experiment);
      scrollTo(0, scrolls.get(location.hash) ?? 0);
    }
  } catch (error) {
    if (asked !== view) return;
    wait = AFTER_TROUBLE_MS;
    live.textContent = "";
    trouble.textContent = error instanceof TypeError ? "No answer: is katib-callbacks ui still running? This page asks again." : error.message;
    trouble.hidden = false;
  } finally {
    asked.isAsking = false;
  }
  if (!document.hidden) timer = setTimeout(round, wait);
}

addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) round();
});
open();
