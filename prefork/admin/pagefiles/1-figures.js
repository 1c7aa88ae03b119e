// Figures: how numbers are said, and what is computed from buckets. Pure.

const UNKNOWN = "–";
const plain = new Intl.NumberFormat("en");
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

const known = (value) => value !== null && value !== undefined;

function count(value) {
  return known(value) ? plain.format(value) : UNKNOWN;
}

function shortCount(value) {
  if (!known(value)) return UNKNOWN;
  return value < 10000 ? plain.format(value) : compact.format(value);
}

function rate(value) {
  if (!known(value)) return UNKNOWN;
  return value < 10 && !Number.isInteger(value) ? value.toFixed(1) : shortCount(Math.round(value));
}

function plural(value, one, many) {
  return `${count(value)} ${value === 1 ? one : (many ?? `${one}s`)}`;
}

// Three digits at most: what does not fit at a glance is not read at a glance.
function digits(value) {
  return value < 9.95 ? String(+value.toFixed(1)) : value.toFixed(0);
}

function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 0.9995) return `${digits(seconds * 1000)} ms`;
  return elapsed(seconds);
}

// For what still runs: a poll takes a second, so less than a tenth means nothing.
function elapsed(seconds) {
  if (seconds < 60) return `${seconds < 9.95 ? seconds.toFixed(1) : Math.floor(seconds)} s`;
  return longDuration(seconds);
}

// Two units, the smaller one only while it matters.
function longDuration(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const at = units.findIndex(([size]) => seconds >= size);
  if (at < 0) return "0 s";
  const [size, name] = units[at];
  const whole = Math.floor(seconds / size);
  const rest = at + 1 < units.length ? Math.floor((seconds % size) / units[at + 1][0]) : 0;
  return rest && whole < 10 ? `${whole} ${name} ${rest} ${units[at + 1][1]}` : `${whole} ${name}`;
}

// One unit: for ages, which nobody reads to the second.
function age(seconds) {
  return longDuration(seconds).split(" ").slice(0, 2).join(" ");
}

function ago(seconds) {
  return seconds < 2 ? "just now" : `${age(seconds)} ago`;
}

function bytes(value) {
  if (!known(value)) return UNKNOWN;
  let unit = 0;
  while (value >= 1000 && unit < 4) {
    value /= 1024;
    unit += 1;
  }
  return `${unit > 2 && value < 100 ? +value.toFixed(1) : digits(value)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

// The sum of what is known, or null when nothing is.
function sumOfKnown(values) {
  const numbers = values.filter(known);
  return numbers.length ? sum(numbers) : null;
}

// The value below which the share q of all counted lies: straight within a bucket, as Prometheus does it. What lies in
// the last bucket, which has no upper bound, is told as Infinity times nothing: the highest bound, marked as `above`.
function quantile(bounds, counts, q) {
  const total = sum(counts);
  if (!total) return null;
  let before = 0;
  for (let i = 0; i < bounds.length; i += 1) {
    if (counts[i] && before + counts[i] >= q * total) {
      const lower = i ? bounds[i - 1] : 0;
      return { value: lower + ((bounds[i] - lower) * (q * total - before)) / counts[i], above: false };
    }
    before += counts[i];
  }
  return { value: bounds[bounds.length - 1], above: true };
}

function quantileText(found) {
  return found ? `${found.above ? "> " : ""}${duration(found.value)}` : UNKNOWN;
}
