// The table of trials: sorted, filtered, and changed in place, so that scroll and selection stay.

import { badge, duration, elapsed, h, short } from "./dom.js";

const KINDS = ["latest", "min", "max"];
const ROWS_AT_ONCE = 150;  // of a thousand trials few are looked at: more rows come when one scrolls
const QUIET = new Set(["Succeeded", "Running", "Created", "Reported"]);
const COMPARED = /^(.+?)(<=|>=|<|>|=)(-?[\d.]+(?:e[-+]?\d+)?)$/i;

const number = (text) => (text === undefined || text === null || text === "" ? NaN : Number(text));
const objective = (trial) => trial.value ?? NaN;
const lastPart = (name, experiment) => (name.startsWith(`${experiment}-`) ? name.slice(experiment.length + 1) : name);
const OPENING = /^(Trial has failed\. Job message: (exit status \d+; last output: )?|Trial is early stopped: |Metrics are not available: )/;
export function progressOf({ progress }) {
  if (!progress) return "";
  const words = [progress.row && `epoch ${progress.row}`, progress.share !== null && `${Math.floor(progress.share * 100)} %`,
    progress.remaining_s && `${duration(progress.remaining_s)} left`];
  return words.filter(Boolean).join(" · ");
}
const reason = (trial) => trial.state === "Running" ? progressOf(trial) : (QUIET.has(trial.state) ? "" : trial.message.replace(OPENING, ""));
const numeric = (text) => (Number.isFinite(Number(text)) ? Number(text) : text);

function known(trial, name) {
  if (name === "objective") return objective(trial);
  if (name === "number") return trial.number;
  if (name === "seconds") return elapsed(trial);
  return number(trial.parameters[name] ?? trial.metrics[name]?.latest);
}

const COMPARE = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };

// "failed lr<0.01": a trial that has the word, and a parameter or a metric that compares so.
export function filter(text) {
  const tests = text.trim().split(/\s+/).filter(Boolean).map((word) => {
    const compared = COMPARED.exec(word);
    if (compared) return (trial) => COMPARE[compared[2]](known(trial, compared[1]), Number(compared[3]));
    const low = word.toLowerCase();
    return (trial) => searched(trial).includes(low);
  });
  return (trial) => tests.every((test) => test(trial));
}

function searched(trial) {
  const parameters = Object.entries(trial.parameters).map(([name, value]) => `${name}=${value}`);
  return [trial.name, `#${trial.number}`, trial.state, trial.message, ...parameters].join("\n").toLowerCase();
}

export class TrialTable {
  // `choose` is called with a trial's name when somebody asks for its curve, or not any more.
  constructor({ settings, choose }) {
    Object.assign(this, { settings, choose });
    this.limit = ROWS_AT_ONCE;
    this.head = h("tr");
    this.body = h("tbody");
    this.element = h("div", { class: "scroll", tabindex: 0 }, h("table", {}, h("thead", {}, this.head), this.body));
    this.element.addEventListener("scroll", () => {
      const { scrollTop, clientHeight, scrollHeight } = this.element;
      if (this.hasMore && scrollTop + clientHeight > scrollHeight - clientHeight) this.more();
    });
    this.rows = new Map();
    this.signature = "";
    this.order = "";
  }

  columns(experiment, trials) {
    const names = [...experiment.metrics];
    for (const trial of trials) for (const name of Object.keys(trial.metrics)) if (!names.includes(name)) names.push(name);
    const parameters = experiment.parameters.map((one) => one.name);
    const kinds = this.settings.kind === "all" ? KINDS : [this.settings.kind];
    return [
      { title: "#", value: (trial) => trial.number, number: true },
      { title: "Trial", value: (trial) => trial.name, cell: (trial) => h("a", { href: `#/trial/${encodeURIComponent(trial.name)}`, title: trial.name }, lastPart(trial.name, experiment.name)) },
      { title: "State", value: (trial) => trial.state, cell: (trial) => badge(trial.state) },
      { title: "Reason", value: reason, text: reason, class: "message" },
      experiment.objective.metric && { title: "Objective", value: objective, number: true, title_text: experiment.objective.metric },
      ...names.flatMap((name) => kinds.map((kind) => ({
        title: kinds.length > 1 ? `${name} ${kind}` : name,
        title_text: `${name}, ${kind}`,
        value: (trial) => number(trial.metrics[name]?.[kind]),
        text: (trial) => trial.metrics[name]?.[kind],
        number: true,
      }))),
      ...parameters.map((name) => ({
        title: name,
        title_text: `parameter ${name}`,
        value: (trial) => numeric(trial.parameters[name]),
        text: (trial) => trial.parameters[name],
      })),
      { title: "Duration", value: elapsed, text: (trial) => duration(elapsed(trial)), number: true },
    ].filter(Boolean);
  }

  show(experiment, trials, chosen) {
    const anchor = this.anchor();
    this.shown = this.columns(experiment, trials);
    const signature = JSON.stringify([this.shown.map((column) => column.title), this.settings.sort, this.settings.down]);
    if (signature !== this.signature) {
      this.signature = signature;
      this.rows.clear();
      this.order = "";
      this.head.replaceChildren(h("th", { title: "curves" }), ...this.shown.map((column) => this.heading(column)));
    }
    const accepts = filter(this.settings.filter);
    const { states } = this.settings;
    const sorted = this.sorted(trials.filter((trial) => (!states.size || states.has(trial.state)) && accepts(trial)));
    const reached = anchor ? sorted.findIndex((trial) => trial.name === anchor.name) + ROWS_AT_ONCE : 0;
    this.limit = Math.max(this.limit, reached);
    const rows = sorted.slice(0, this.limit).map((trial) => this.updated(trial, trial.name === experiment.best?.name, chosen));
    const order = rows.map((row) => row.trial.name).join();
    if (order !== this.order) this.body.replaceChildren(...rows.map((row) => row.element));
    this.order = order;
    this.more = () => {
      this.limit += ROWS_AT_ONCE;
      this.show(experiment, trials, chosen);
    };
    this.hasMore = sorted.length > rows.length;
    if (reached >= ROWS_AT_ONCE) this.element.scrollTop += this.rows.get(anchor.name).element.offsetTop - anchor.top;
    else if (anchor) this.element.scrollTop = 0;  // it is filtered out
    return sorted.length;
  }

  // The row of a trial, with new cells where something about it has changed.
  updated(trial, isBest, chosen) {
    let row = this.rows.get(trial.name);
    if (!row) {
      const element = this.row(trial, isBest);
      row = { element, box: element.querySelector("input") };
      this.rows.set(trial.name, row);
    } else if (row.trial !== trial || row.isBest !== isBest || trial.state === "Running") {
      const fresh = this.row(trial, isBest);
      row.element.className = fresh.className;
      [...fresh.cells].forEach((cell, index) => {
        const old = row.element.cells[index];
        if (index && !cell.isEqualNode(old)) old.replaceWith(cell);
      });
    }
    Object.assign(row, { trial, isBest });
    row.box.checked = chosen.has(trial.name);
    return row;
  }

  sorted(trials) {
    const column = this.shown.find((one) => one.title === this.settings.sort) ?? this.shown[0];
    const sign = this.settings.down ? -1 : 1;
    const isNone = (value) => value === undefined || value === null || value === "" || Number.isNaN(value);
    const keyed = trials.map((trial) => [column.value(trial), trial]);
    keyed.sort(([a, one], [b, other]) => {
      if (isNone(a) || isNone(b)) return isNone(a) - isNone(b) || other.number - one.number;
      const compared = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
      return sign * compared || other.number - one.number;
    });
    return keyed.map(([, trial]) => trial);
  }

  heading(column) {
    const isSorted = column.title === this.settings.sort;
    const press = () => {
      this.settings.down = isSorted ? !this.settings.down : column.number;
      this.settings.sort = column.title;
      this.settings.changed();
    };
    const arrow = isSorted ? (this.settings.down ? " ↓" : " ↑") : "";
    const sorted = isSorted ? (this.settings.down ? "descending" : "ascending") : "none";
    const button = h("button", { type: "button", onclick: press }, `${column.title}${arrow}`);
    return h("th", { class: column.number && "number", title: column.title_text, "aria-sort": sorted }, button);
  }

  row(trial, isBest) {
    const box = h("input", { type: "checkbox", "aria-label": `curves of ${trial.name}`, onchange: () => this.choose(trial.name, box.checked) });
    const cells = this.shown.map((column) => {
      if (column.cell) return h("td", {}, column.cell(trial));
      const text = column.text ? column.text(trial) : column.value(trial);
      const isEmpty = text === undefined || text === null || Number.isNaN(text);
      const shown = isEmpty ? "" : column.class || column.title === "Duration" ? text : short(text);
      return h("td", { class: column.class ?? (column.number && "number"), title: isEmpty || text === "" ? null : String(text) }, shown);
    });
    return h("tr", { class: isBest && "is-best", "data-trial": trial.name }, h("td", {}, box), ...cells);
  }

  // The first row that is seen, where somebody has scrolled: it stays where it is when rows come above it.
  anchor() {
    const top = this.element.scrollTop;
    if (!top) return null;
    const element = [...this.body.children].find((one) => one.offsetTop >= top);
    return element ? { name: element.dataset.trial, top: element.offsetTop } : null;
  }
}
