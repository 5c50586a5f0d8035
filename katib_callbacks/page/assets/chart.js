// Axes, points and lines in SVG, as wide as their place; a tooltip for the nearest point.

import { h, s, short } from "./dom.js";

const HEIGHT = 260;
const LEFT = 56;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 38;
const REACH = 24;
const FLOOR = 18;  // what has no value stands there

function linear(low, high, isWhole) {
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const rough = isWhole ? Math.max(1, (high - low) / 5) : (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough && (!isWhole || Number.isInteger(one)));
  const ticks = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) ticks.push(at * step);
  return { share: (value) => (value - low) / (high - low), ticks: ticks.map((at) => [at, short(Number(at.toPrecision(12)))]) };
}

function logarithmic(low, high) {
  const inner = linear(Math.log10(low), Math.log10(high));
  const ticks = [];
  for (let power = Math.ceil(Math.log10(low)); power <= Math.log10(high); power += 1) ticks.push([10 ** power, short(10 ** power)]);
  if (ticks.length < 2) ticks.splice(0, ticks.length, [low, short(low)], [high, short(high)]);
  return { share: (value) => inner.share(Math.log10(value)), ticks };
}

function named(names) {
  const place = new Map(names.map((name, index) => [name, (index + 0.5) / names.length]));
  const cut = (name) => (name.length > 14 ? `${name.slice(0, 13)}…` : name);
  return { share: (value) => place.get(value), ticks: names.map((name) => [name, cut(name)]) };
}

export function scale(values, kind) {
  if (kind === "names") return named([...new Set(values)].sort());
  const numbers = values.filter(Number.isFinite);
  if (!numbers.length) return linear(0, 1);
  const low = numbers.reduce((a, b) => Math.min(a, b));
  const high = numbers.reduce((a, b) => Math.max(a, b));
  return kind === "log" && low > 0 ? logarithmic(low, high) : linear(low, high, kind === "whole");
}

export function mark(shape, x, y, attributes) {
  const r = 3.5;
  const paths = {
    circle: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
    square: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
    cross: `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`,
    ring: `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
  };
  return s("path", { d: paths[shape], ...attributes, class: `mark ${shape} ${attributes.class ?? ""}` });
}

// A picture in a place that may become wider or narrower: `draw` is asked anew for what is in it.
export class Chart {
  constructor(label) {
    this.svg = s("svg", { role: "img", "aria-label": label, height: HEIGHT });
    this.tip = h("div", { class: "tip", hidden: true });
    this.element = h("div", { class: "chart" }, this.svg, this.tip);
    this.spots = [];
    this.width = 0;
    this.observer = new ResizeObserver(() => {
      if (this.element.clientWidth !== this.width) this.redraw();
    });
    this.observer.observe(this.element);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.svg.addEventListener("click", (event) => this.nearest(event)?.open?.());
  }

  // `content`: x and y (scales), xTitle, yTitle, lines ({points: [[x, y]], class, steps}), marks ({x, y, shape, class, text, open}).
  show(content) {
    this.content = content;
    this.redraw();
  }

  redraw() {
    this.width = this.element.clientWidth;
    if (!this.content || this.width < 80) return;
    const { x, y, xTitle, yTitle, lines, marks, empty } = this.content;
    const right = this.width - RIGHT;
    const bottom = HEIGHT - BOTTOM;
    const across = (value) => LEFT + 8 + x.share(value) * (right - LEFT - 16);
    const floor = marks?.some((one) => one.y === null) ? FLOOR : 6;
    const up = (value) => bottom - floor - y.share(value) * (bottom - TOP - floor - 6);
    const parts = [];
    for (const [value, text] of y.ticks) {
      parts.push(s("line", { class: "grid", x1: LEFT, x2: right, y1: up(value), y2: up(value) }));
      parts.push(s("text", { class: "tick", x: LEFT - 6, y: up(value) + 4, "text-anchor": "end" }, text));
    }
    let free = -Infinity;
    for (const [value, text] of x.ticks) {
      const room = text.length * 3.6;
      const at = across(value);
      if (at - room < free) continue;
      free = at + room + 8;
      const anchor = at + room > this.width ? "end" : "middle";
      parts.push(s("line", { class: "grid", x1: at, x2: at, y1: TOP, y2: bottom }));
      parts.push(s("text", { class: "tick", x: anchor === "end" ? this.width - 2 : at, y: bottom + 15, "text-anchor": anchor }, text));
    }
    parts.push(s("text", { class: "title", x: (LEFT + right) / 2, y: HEIGHT - 5, "text-anchor": "middle" }, xTitle));
    parts.push(s("text", { class: "title", transform: `translate(11 ${(TOP + bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, yTitle));
    for (const line of lines ?? []) {
      let path = "";
      line.points.forEach(([a, b], index) => {
        if (!index) path = `M${across(a)} ${up(b)}`;
        else path += line.steps ? `H${across(a)}V${up(b)}` : `L${across(a)} ${up(b)}`;
      });
      if (line.points.length > 1) parts.push(s("path", { d: path, class: `line ${line.class}` }));
    }
    this.spots = [];
    for (const one of marks ?? []) {
      const [a, b] = [across(one.x), one.y === null ? bottom - 6 : up(one.y)];
      this.spots.push({ a, b, ...one });
      if (one.shape) parts.push(mark(one.shape, a, b, { class: one.class }));
    }
    if (empty) parts.push(s("text", { class: "empty", x: (LEFT + right) / 2, y: HEIGHT / 2, "text-anchor": "middle" }, empty));
    this.svg.setAttribute("width", this.width);
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${HEIGHT}`);
    this.svg.replaceChildren(...parts);
  }

  nearest(event) {
    const box = this.svg.getBoundingClientRect();
    const [a, b] = [event.clientX - box.left, event.clientY - box.top];
    let found = null;
    let least = REACH ** 2;
    for (const spot of this.spots) {
      const far = (spot.a - a) ** 2 + (spot.b - b) ** 2;
      if (far < least) [found, least] = [spot, far];
    }
    return found;
  }

  point(event) {
    const spot = this.nearest(event);
    this.tip.hidden = !spot;
    this.svg.style.cursor = spot?.open ? "pointer" : "default";
    if (!spot) return;
    this.tip.textContent = spot.text;
    const room = this.width - this.tip.offsetWidth - 4;
    this.tip.style.left = `${Math.max(4, Math.min(spot.a + 10, room))}px`;
    this.tip.style.top = `${Math.max(0, spot.b - this.tip.offsetHeight - 8)}px`;
  }

  close() {
    this.observer.disconnect();
  }
}
