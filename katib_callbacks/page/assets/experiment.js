// One experiment: how far it is, the best trial, objectives, curves, and all trials.

import { ask, badge, duration, elapsed, h, moment, renew, s, short } from "./dom.js";
import { Chart, mark, scale } from "./chart.js";
import { TrialTable } from "./table.js";

const OVER = new Set(["Succeeded", "Failed", "MetricsUnavailable", "Killed", "EarlyStopped"]);
const SHAPES = { EarlyStopped: "square", Failed: "cross", Killed: "cross", MetricsUnavailable: "cross", Running: "ring" };
const MOST_CHOSEN = 32;
const CHOSEN_AT_FIRST = 6;

const stateClass = (state) => `state-${state.toLowerCase()}`;

export function progress(experiment) {
  const counts = Object.entries(experiment.counts);
  const total = Math.max(experiment.max_trials ?? 0, counts.reduce((sum, [, count]) => sum + count, 0), 1);
  let at = 0;
  const parts = counts.filter(([state]) => OVER.has(state) || state === "Running" || state === "Reported").map(([state, count]) => {
    const part = s("rect", { x: at, y: 0, width: count, height: 1, class: stateClass(state), fill: "currentColor" });
    at += count;
    return part;
  });
  return h("div", { class: "bar" }, s("svg", { viewBox: `0 0 ${total} 1`, preserveAspectRatio: "none", "aria-hidden": "true" }, parts));
}

export function told(experiment) {
  const over = Object.entries(experiment.counts).reduce((sum, [state, count]) => sum + (OVER.has(state) ? count : 0), 0);
  const words = Object.entries(experiment.counts).map(([state, count]) => `${count} ${state}`);
  return [experiment.max_trials ? `${over} of ${experiment.max_trials} trials are over` : "", ...words].filter(Boolean).join(" · ");
}

// By the mean of what trials took so far; nothing where there is none yet, or no end.
function remaining(experiment, trials) {
  const took = trials.filter((trial) => OVER.has(trial.state) && trial.started_s && trial.completed_s).map(elapsed);
  const count = (experiment.max_trials ?? 0) - trials.filter((trial) => OVER.has(trial.state)).length;
  if (experiment.state !== "Running" || !took.length || count <= 0) return 0;
  const running = trials.filter((trial) => trial.state === "Running").reduce((sum, trial) => sum + elapsed(trial), 0);
  const mean = took.reduce((sum, one) => sum + one, 0) / took.length;
  return Math.max(mean * count - running, 0) / (experiment.parallel_trials ?? 1);
}

// What colours and dashes tell curves apart.
export const look = (index) => `c${index % 8} dash${Math.floor(index / 8) % 4}`;

export function curveContent(curves, metric, by, open) {
  const [lines, marks, xs, ys] = [[], [], [], []];
  curves.forEach(([name, curve], index) => {
    const found = curve?.metrics[metric];
    if (!found) return;
    const points = found[by].map((x, at) => [x, found.value[at]]);
    points.forEach(([x, y], at) => {
      const isLast = at === points.length - 1;
      const shape = isLast ? SHAPES[curve.state] ?? "circle" : null;
      const where = by === "index" ? `report ${x}` : duration(x);
      marks.push({ x, y, shape, class: look(index), open: open && (() => open(name)), text: `#${curve.number} ${name}\n${metric} ${short(y)}\n${where}` });
      xs.push(x);
      ys.push(y);
    });
    lines.push({ points, class: look(index) });
  });
  return {
    x: scale(xs, by === "index" ? "whole" : "linear"), y: scale(ys), lines, marks, yTitle: metric ?? "",
    xTitle: by === "index" ? "epoch, or number of the report" : "seconds since the trial began",
    empty: marks.length ? null : "no values yet",
  };
}

export class ExperimentView {
  constructor(name, kept) {
    this.name = name;
    kept.settings ??= { filter: "", kind: "latest", sort: "#", down: true, states: new Set(), x: "", y: "", metric: "", by: "index", chosen: null };
    kept.curves ??= new Map();
    kept.trials ??= new Map();
    Object.assign(this, { kept, settings: kept.settings });
    this.settings.changed = () => this.draw();
    this.facts = h("div");
    this.times = h("p", { class: "dim" });
    this.best = h("div", { class: "card" });
    this.objectives = new Chart("objective of each trial");
    this.curves = new Chart("curves of the chosen trials");
    this.x = this.select("x", "over");
    this.y = this.select("y", "of");
    this.metric = this.select("metric", "of");
    this.by = this.select("by", "over");
    this.legend = h("div", { class: "legend" });
    this.states = h("div", { class: "row" });
    this.count = h("span", { class: "dim" });
    this.table = new TrialTable({
      settings: this.settings,
      choose: (trial, isChosen) => this.choose(trial, isChosen),
    });
    const search = h("input", {
      type: "search", id: "filter", placeholder: "Filter: failed adam lr<0.01 objective>0.9", "aria-label": "filter of trials",
      oninput: () => { this.settings.filter = search.value; this.draw(); },
    });
    search.value = this.settings.filter;
    const kind = this.select("kind", "metrics");
    this.fill(kind, [["latest", "latest"], ["min", "min"], ["max", "max"], ["all", "latest, min, max"]], "kind");
    const none = h("button", { type: "button", onclick: () => { this.settings.chosen = []; this.draw(); } }, "none");
    const first = h("button", { type: "button", onclick: () => { this.settings.chosen = null; this.draw(); } }, "best and latest");
    this.element = h("div", {}, this.facts, this.times,
      h("div", { class: "cards pictures" },
        this.best,
        h("section", { class: "card" }, h("div", { class: "row" }, h("h2", {}, "Trials"), this.y, this.x), this.objectives.element),
        h("section", { class: "card" }, h("div", { class: "row" }, h("h2", {}, "Curves"), this.metric, this.by), this.curves.element, this.legend,
          h("div", { class: "row" }, h("span", { class: "dim" }, "choose in the table, or:"), first, none))),
      h("section", { class: "card" }, h("div", { class: "row" }, search, kind, this.count), this.states, this.table.element));
  }

  select(setting, label) {
    const element = h("select", { onchange: () => { this.settings[setting] = element.value; this.draw(); } });
    const place = h("label", {}, label, element);
    place.list = element;
    return place;
  }

  fill(place, options, setting) {
    const signature = JSON.stringify(options);
    if (place.signature !== signature) {
      place.signature = signature;
      place.list.replaceChildren(...options.map(([value, text]) => h("option", { value }, text)));
    }
    if (!options.some(([value]) => value === this.settings[setting])) this.settings[setting] = options[0]?.[0] ?? "";
    if (place.list.value !== this.settings[setting]) place.list.value = this.settings[setting];
  }

  async refresh() {
    const { kept } = this;
    const query = new URLSearchParams({ generation: kept.generation ?? "", revision: kept.revision ?? 0 });
    const found = await ask(`api/experiments/${encodeURIComponent(this.name)}?${query}`);
    if (found.experiment) {
      if (found.is_whole) [kept.trials, kept.curves] = [new Map(), new Map()];
      for (const trial of found.trials) kept.trials.set(trial.name, trial);
      kept.experiment = found.experiment;
    }
    [kept.generation, kept.revision] = [found.generation, found.revision];
    if (found.experiment || !this.isDrawn || kept.experiment.counts.Running) this.draw();
    await this.fetchCurves();
  }

  chosen() {
    const { kept } = this;
    if (this.settings.chosen) return this.settings.chosen;
    const trials = [...kept.trials.values()].sort((one, other) => other.number - one.number);
    const wanted = [kept.experiment.best?.name, ...trials.filter((trial) => trial.state === "Running").map((trial) => trial.name)];
    wanted.push(...trials.filter((trial) => Object.keys(trial.metrics).length).map((trial) => trial.name));
    return [...new Set(wanted.filter(Boolean))].slice(0, CHOSEN_AT_FIRST);
  }

  choose(trial, isChosen) {
    const others = this.chosen().filter((name) => name !== trial);
    this.settings.chosen = isChosen ? [...others, trial].slice(-MOST_CHOSEN) : others;
    this.draw();
    this.fetchCurves().catch(() => {});  // the next round says what is wrong
  }

  // Curves of a trial are asked for again only when something about it has changed.
  async fetchCurves() {
    const { trials, curves } = this.kept;
    const stale = this.chosen().filter((name) => trials.has(name) && curves.get(name)?.of !== trials.get(name));
    if (!stale.length) return;
    const asked = new Map(stale.map((name) => [name, trials.get(name)]));
    const found = await ask(`api/curves?${new URLSearchParams(stale.map((name) => ["trial", name]))}`);
    for (const [name, curve] of Object.entries(found)) curves.set(name, { of: asked.get(name), ...curve });
    this.drawCurves();
  }

  draw() {
    const { experiment } = this.kept;
    if (!experiment) return;
    this.isDrawn = true;
    const trials = [...this.kept.trials.values()];
    this.drawFacts(experiment, trials);
    this.drawObjectives(experiment, trials);
    this.drawCurves();
    const pressed = [...this.settings.states];
    renew(this.states, JSON.stringify([experiment.counts, pressed]), () => Object.entries(experiment.counts).map(([state, count]) => this.toggle(state, count)));
    const count = this.table.show(experiment, trials, new Set(this.chosen()));
    this.count.textContent = count === trials.length ? `${count} trials` : `${count} of ${trials.length} trials`;
  }

  toggle(state, count) {
    const { states } = this.settings;
    const press = () => {
      if (!states.delete(state)) states.add(state);
      this.draw();
    };
    return h("button", { type: "button", "aria-pressed": String(states.has(state)), onclick: press }, badge(state), ` ${count}`);
  }

  drawFacts(experiment, trials) {
    const { objective, best } = experiment;
    const words = [experiment.kind, experiment.algorithm, experiment.parallel_trials && `${experiment.parallel_trials} at a time`,
      experiment.started_s && `began ${moment(experiment.started_s)}`, duration(elapsed(experiment))];
    const left = remaining(experiment, trials);
    this.times.textContent = [...words, left && `about ${duration(left)} left`].filter(Boolean).join(" · ");
    renew(this.facts, JSON.stringify(experiment), () => [
      h("div", { class: "row" }, h("h1", {}, experiment.name), badge(experiment.state)),
      h("p", { class: "dim" }, experiment.message),
      progress(experiment),
      h("p", {}, told(experiment)),
    ]);
    const trial = best && this.kept.trials.get(best.name);
    const aim = objective.metric ? `${objective.type} ${objective.metric}${objective.goal === null ? "" : `, goal ${objective.goal}`}` : "no objective is known: say --maximize METRIC or --minimize METRIC";
    renew(this.best, JSON.stringify([aim, best, Boolean(trial)]), () => [
      h("h2", {}, "Best trial"), h("p", { class: "dim" }, aim),
      ...(trial ? [
        h("div", { class: "big", id: "best" }, short(best.value)),
        h("p", {}, h("a", { href: `#/trial/${encodeURIComponent(best.name)}` }, `#${best.number} ${best.name}`)),
        h("dl", {}, Object.entries(trial.parameters).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      ] : [h("p", {}, "none yet")]),
    ]);
  }

  drawObjectives(experiment, trials) {
    const { objective, parameters, metrics } = experiment;
    this.fill(this.y, [...(objective.metric ? [["", "objective"]] : []), ...metrics.map((name) => [`metric ${name}`, `${name}, latest`])], "y");
    this.fill(this.x, [["", "trial"], ...parameters.map((one) => [one.name, one.name])], "x");
    const metric = this.settings.y.slice("metric ".length);
    const parameter = parameters.find((one) => one.name === this.settings.x);
    const xOf = (trial) => {
      if (!parameter) return trial.number;
      const value = trial.parameters[parameter.name];
      return parameter.is_number ? Number(value) : value;
    };
    const yOf = (trial) => {
      const text = this.settings.y ? trial.metrics[metric]?.latest : trial.value ?? (trial.state === "Running" ? trial.metrics[objective.metric]?.latest : null);
      const value = text === undefined || text === null ? NaN : Number(text);
      return Number.isFinite(value) ? value : null;
    };
    const sorted = trials.filter((trial) => xOf(trial) !== undefined).sort((one, other) => one.number - other.number);
    const marks = sorted.map((trial) => {
      const y = yOf(trial);
      const isBest = trial.name === experiment.best?.name;
      return {
        x: xOf(trial), y, shape: SHAPES[trial.state] ?? (y === null ? "cross" : "circle"),
        class: `${stateClass(trial.state)}${isBest ? " is-best" : ""}`,
        text: `#${trial.number} ${trial.name}\n${trial.state}${y === null ? "" : ` · ${short(y)}`}${parameter ? `\n${parameter.name} ${trial.parameters[parameter.name]}` : ""}`,
        open: () => { location.hash = `#/trial/${encodeURIComponent(trial.name)}`; },
      };
    });
    const lines = [];
    if (!parameter && !this.settings.y) {
      const better = objective.type === "maximize" ? Math.max : Math.min;
      let best = null;
      const points = [];
      for (const trial of sorted) {
        if (trial.value === null) continue;
        best = best === null ? trial.value : better(best, trial.value);
        points.push([trial.number, best]);
      }
      lines.push({ points, class: "best-line", steps: true });
    }
    const kind = parameter && !parameter.is_number ? "names" : parameter?.is_logarithmic ? "log" : parameter ? "linear" : "whole";
    this.objectives.show({
      x: scale(marks.map((one) => one.x), kind), y: scale(marks.map((one) => one.y).filter((y) => y !== null)), marks, lines,
      xTitle: parameter?.name ?? "trial", yTitle: this.settings.y ? metric : objective.metric ?? "", empty: marks.length ? null : "no trials yet",
    });
  }

  drawCurves() {
    const chosen = this.chosen();
    const curves = chosen.map((name) => [name, this.kept.curves.get(name)]);
    const names = [...new Set([...this.kept.experiment.metrics, ...curves.flatMap(([, curve]) => Object.keys(curve?.metrics ?? {}))])];
    this.fill(this.metric, names.map((name) => [name, name]), "metric");
    this.fill(this.by, [["index", "epochs"], ["seconds", "time"]], "by");
    const open = (name) => { location.hash = `#/trial/${encodeURIComponent(name)}`; };
    this.curves.show(curveContent(curves, this.settings.metric, this.settings.by, open));
    const shown = chosen.map((name) => [name, this.kept.trials.get(name)?.state]);
    renew(this.legend, JSON.stringify(shown), () => chosen.map((name, index) => {
      const trial = this.kept.trials.get(name);
      const sample = s("svg", { width: 26, height: 10 }, s("path", { d: "M1 5H25", class: `line ${look(index)}` }), mark(SHAPES[trial?.state] ?? "circle", 13, 5, { class: look(index) }));
      const label = trial ? `#${trial.number} ${trial.state === "Succeeded" || trial.state === "Reported" ? "" : trial.state}` : name;
      return h("a", { href: `#/trial/${encodeURIComponent(name)}`, title: name }, sample, label);
    }));
  }

  close() {
    this.objectives.close();
    this.curves.close();
  }
}
