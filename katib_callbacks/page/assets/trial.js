// One trial: what became of it and why, its curves, its command, its last words, its log.

import { ask, badge, duration, elapsed, h, moment, renew, short } from "./dom.js";
import { Chart } from "./chart.js";
import { curveContent } from "./experiment.js";
import { progressOf } from "./table.js";

const MOST_CHARACTERS = 2_000_000;
const NEAR_THE_END = 40;
const ESCAPES = /\u001b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)|[@-Z\\-_])/g;  // of a terminal: colours, titles

// A bar of progress writes a line over and over: what was last is shown.
const line = (text) => text.replace(/\r$/, "").replace(/^.*\r/, "").replace(ESCAPES, "");

class Log {
  constructor(trial) {
    this.trial = trial;
    this.files = h("select", { "aria-label": "log", onchange: () => this.begin(this.files.value) });
    this.note = h("span", { class: "dim" });
    this.text = h("pre", { id: "log", tabindex: 0 });
    this.element = h("section", { class: "card" }, h("div", { class: "row" }, h("h2", {}, "Log"), this.note, this.files), this.text);
  }

  show(files) {
    const signature = files.join();
    this.files.hidden = files.length < 2;
    if (signature === this.signature) return;
    this.signature = signature;
    this.files.replaceChildren(...files.map((file) => h("option", { value: file }, file.startsWith(`${this.trial}.`) ? file.slice(this.trial.length + 1) : file)));
    if (files.includes(this.file)) this.files.value = this.file;
    else if (files.length) this.begin(files[0]);
  }

  begin(file) {
    [this.file, this.offset, this.rest, this.isDone] = [file, null, "", false];
    this.text.replaceChildren();
  }

  async follow() {
    if (!this.file || this.isDone) {
      if (!this.file) this.note.textContent = "there is none";
      return;
    }
    const file = this.file;
    const path = `api/trials/${encodeURIComponent(this.trial)}/log/${encodeURIComponent(file)}`;
    let piece;
    do {
      piece = await ask(this.offset === null ? path : `${path}?offset=${this.offset}`);
      if (file !== this.file) return;
      this.take(piece);
    } while (piece.has_more);
    this.isDone = piece.is_over;
    this.note.textContent = [this.isCut ? "the end of it" : "", piece.is_over ? "" : "following"].filter(Boolean).join(" · ");
  }

  take(piece) {
    const { text } = this;
    const isAtEnd = text.scrollHeight - text.scrollTop - text.clientHeight < NEAR_THE_END;
    if (piece.begins) {
      text.replaceChildren();
      this.rest = "";
      this.isCut = piece.is_cut;
    }
    this.offset = piece.offset;
    if (!piece.text && !piece.begins) return;
    const lines = (this.rest + piece.text).split("\n");
    this.rest = lines.pop();
    this.last?.remove();
    if (lines.length) text.append(document.createTextNode(lines.map((one) => `${line(one)}\n`).join("")));
    this.last = document.createTextNode(line(this.rest));
    text.append(this.last);
    while (text.textContent.length > MOST_CHARACTERS && text.childNodes.length > 2) {
      text.firstChild.remove();
      this.isCut = true;
    }
    if (isAtEnd) text.scrollTop = text.scrollHeight;
  }
}

export class TrialView {
  constructor(name) {
    this.name = name;
    this.facts = h("div");
    this.times = h("p", { class: "dim" });
    this.charts = new Map();
    this.pictures = h("div", { class: "cards" });
    this.details = h("div", { class: "cards" });
    this.log = new Log(name);
    this.element = h("div", {}, this.facts, this.times, this.pictures, this.details, this.log.element);
  }

  async refresh() {
    const path = `api/trials/${encodeURIComponent(this.name)}`;
    const trial = await ask(path);
    const said = JSON.stringify(trial);
    this.experiment = trial.experiment;
    if (said !== this.said || trial.state === "Running") this.drawFacts(trial);
    if (said !== this.said) {
      this.drawDetails(trial);
      const curves = await ask(`api/curves?${new URLSearchParams({ trial: this.name })}`);
      this.drawCurves(curves[this.name]);
    }
    this.said = said;
    this.log.element.hidden = !trial.logs.length && !trial.commands.length;
    this.log.show(trial.logs);
    await this.log.follow();
  }

  drawFacts(trial) {
    const words = [trial.started_s && `began ${moment(trial.started_s)}`, duration(elapsed(trial)), progressOf(trial), trial.attempts > 1 && `attempt ${trial.attempts}`];
    this.times.textContent = words.filter(Boolean).join(" · ");
    renew(this.facts, JSON.stringify([trial.state, trial.reason, trial.message]), () => [
      h("div", { class: "row" }, h("h1", {}, `#${trial.number} ${trial.name}`), badge(trial.state)),
      h("p", { id: "message" }, trial.message), h("p", { class: "dim" }, trial.reason),
    ]);
  }

  drawDetails(trial) {
    const parameters = Object.entries(trial.parameters).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
    const metrics = Object.entries(trial.metrics).map(([name, one]) => h("tr", {}, h("td", {}, name),
      ["latest", "min", "max"].map((kind) => h("td", { class: "number", title: one[kind] }, one[kind] === undefined ? "" : short(one[kind])))));
    const heads = ["Metric", "latest", "min", "max"].map((word, index) => h("th", { class: index && "number" }, word));
    const history = trial.conditions.flatMap((one) => [h("dt", {}, moment(one.lastTransitionTime)), h("dd", {}, `${one.type}: ${one.message}`)]);
    const card = (title, ...content) => h("section", { class: "card" }, h("h2", {}, title), ...content);
    const status = trial.trainer_status;
    const { progress, started_s, ...shown } = trial;
    renew(this.details, JSON.stringify(shown), () => [
      parameters.length && card("Parameters", h("dl", {}, parameters)),
      metrics.length && card("Metrics", h("div", { class: "scroll" }, h("table", {}, h("tr", {}, heads), metrics))),
      trial.commands.length && card("Command", trial.commands.map((command) => h("pre", { class: "command" }, command)), h("p", { class: "dim" }, `works in ${trial.folder}`)),
      trial.termination_message && card("Termination message", h("pre", {}, trial.termination_message)),
      status && card("Status", h("pre", {}, JSON.stringify(status, null, 2))),
      history.length && card("What happened", h("dl", {}, history)),
    ].filter(Boolean));
  }

  drawCurves(curve) {
    for (const name of Object.keys(curve.metrics)) {
      if (!this.charts.has(name)) {
        const chart = new Chart(`curve of ${name}`);
        this.charts.set(name, chart);
        this.pictures.append(h("section", { class: "card" }, h("h2", {}, name), chart.element));
      }
      this.charts.get(name).show(curveContent([[this.name, curve]], name, "index"));
    }
  }

  close() {
    for (const chart of this.charts.values()) chart.close();
  }
}
