// Words for numbers, and elements for words.

const SI = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]];

function digits(value) {
  if (value === 0) return "0";
  const text = Math.abs(value) >= 999.5 ? value.toFixed(0) : value.toPrecision(value < 1 ? 3 : 4);
  return text.includes(".") && !text.includes("e") ? text.replace(/0+$/, "").replace(/\.$/, "") : text;
}

function time(us) {
  const size = Math.abs(us);
  if (size >= 1e6) return `${digits(us / 1e6)} s`;
  if (size >= 1e3) return `${digits(us / 1e3)} ms`;
  if (size >= 1 || us === 0) return `${digits(us)} us`;
  return `${digits(us * 1e3)} ns`;
}

// A place on the time axis, with as many decimals as tell it from places `step` microseconds away.
function moment(us, step) {
  const size = Math.abs(us), [factor, unit] = size >= 1e6 ? [1e6, "s"] : size >= 1e3 ? [1e3, "ms"] : size >= 1 || us === 0 ? [1, "us"] : [1e-3, "ns"];
  const decimals = Math.max(0, Math.min(12, Math.ceil(-Math.log10((step || 1) / factor) - 1e-9)));
  return `${Number((us / factor).toFixed(decimals))} ${unit}`;
}

function si(value, unit) {
  const [factor, letter] = SI.find(([least]) => Math.abs(value) >= least) || [1, ""];
  return `${digits(value / factor)} ${letter}${unit}`;
}

const bytes = value => si(value, "B");
const share = value => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
let names = {};  // what people read for names in the facts: causes and engines
const words = name => names[name] ?? name.replace(/_/g, " ");
const count = value => value.toLocaleString("en-US");

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "style") made.style.cssText = value;
    else if (key === "class") made.className = value;
    else if (value !== false && value !== undefined) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

const byId = id => document.getElementById(id);

// A colour that stays with a name, apart from its neighbours' whatever their number.
function hueOf(number) { return (number * 137.508 + 205) % 360; }

function colour(hue, saturation = 52) { return `hsl(${hue.toFixed(0)} ${saturation}% var(--lightness))`; }

const CAUSE_HUES = {
  pe: 212, scalar: 150, vector: 95, gpsimd: 60, sync: 0, sequencer: 320, semaphore: 345, latency: 285, port: 265, table: 180,
  dma_issue: 12, dma_latency: 22, dma_data: 36,
};
const causeHue = name => CAUSE_HUES[name] ?? 0;

function readFacts() {
  const facts = JSON.parse(byId("facts").textContent);
  names = { ...facts.cause_words, ...facts.estimate?.engine_labels };
  return facts;
}

function remembered(key) { try { return localStorage.getItem(key); } catch { return null; } }

function remember(key, value) { try { localStorage.setItem(key, value); } catch { /* pages from disk may have no storage */ } }

// The reader's choice of light or dark, else the system's.
function setUpTheme(button, changed) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const apply = theme => { root.dataset.theme = theme; changed(); };
  const usual = () => remembered("nxcc-theme") || (system.matches ? "dark" : "light");
  button.addEventListener("click", () => {
    const theme = root.dataset.theme === "dark" ? "light" : "dark";
    remember("nxcc-theme", theme);
    apply(theme);
  });
  system.addEventListener("change", () => apply(usual()));
  apply(usual());
}
