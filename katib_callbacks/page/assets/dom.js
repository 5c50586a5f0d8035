// Elements and words. Whatever comes from an experiment is set as text: no markup is ever parsed here.

const SVG = "http://www.w3.org/2000/svg";

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const h = (tag, attributes, ...children) => filled(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => filled(document.createElementNS(SVG, tag), attributes, children);

// Puts new children into an element only where they would be others: what is being clicked or selected stays.
export function renew(element, key, make) {
  if (element.renewedFor === key) return;
  element.renewedFor = key;
  element.replaceChildren(...make());
}

export function badge(state) {
  return h("span", { class: `badge state-${state.toLowerCase().replace(/[^a-z]/g, "")}` }, state);
}

export function short(value) {
  const number = Number(value);
  if (value === "" || value === null || !Number.isFinite(number)) return String(value ?? "");
  if (Number.isInteger(number) && Math.abs(number) < 1e6) return String(number);
  const size = Math.abs(number);
  return size !== 0 && (size < 1e-3 || size >= 1e6) ? number.toExponential(2) : String(Number(number.toPrecision(5)));
}

export function duration(seconds) {
  if (!Number.isFinite(seconds) || seconds < 0) return "";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 60 / 24)} days`;
}

export const elapsed = (one) =>
  one.started_s ? (one.completed_s ?? Date.now() / 1000) - one.started_s : NaN;

export const moment = (seconds) => (seconds ? new Date(seconds * 1000).toLocaleString() : "");

export async function ask(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (answer.status === 401 || answer.status === 403) {
    throw new Error("This page is no longer let in: open the URL that katib-callbacks ui has printed.");
  }
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.error), { status: answer.status });
  return found;
}
