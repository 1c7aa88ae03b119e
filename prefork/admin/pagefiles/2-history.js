// History: what a pool did between two polls. Counters only grow; when one falls, another server answered.

const CHART_S = 300;
const RATE_S = 5; // the headline is the mean of so many seconds,
const LATENCY_S = 10; // and percentiles need some requests to stand on
const LONGEST_GAP_S = 15;

class History {
  constructor() {
    this.samples = []; // counters as they were read
    this.points = []; // what the charts draw, `at` in seconds of this browser's steady clock
  }

  // Take a pool's part of a status document.
  add(pool, at, uptime_s) {
    const sample = { at, uptime_s, pool };
    const last = this.samples.at(-1);
    if (last && (at - last.at > LONGEST_GAP_S || !follows(last, sample))) this.samples = [];
    if (last && last.uptime_s === uptime_s) return;
    this.samples.push(sample);
    while (this.samples.length > 2 && at - this.samples[1].at >= LATENCY_S) this.samples.shift();
    const workers = pool.workers;
    const pss = sumOfKnown(workers.map((worker) => worker.pss_bytes));
    const uss = sumOfKnown(workers.map((worker) => worker.uss_bytes));
    this.points.push({
      at,
      requests: this.rate("requests", 1),
      errors: this.rate("errors", 1),
      p50: this.latency("application", 0.5)?.value ?? null,
      p95: this.latency("application", 0.95)?.value ?? null,
      p99: this.latency("application", 0.99)?.value ?? null,
      busy: workers.filter(isBusy).length,
      workers: workers.filter(serves).length,
      queue: sumOfKnown(pool.listeners.map((listener) => listener.queue)),
      private: uss,
      all: pss,
    });
    while (this.points[0].at < at - CHART_S) this.points.shift();
  }

  // Return how often per second over the last `window_s`, or null while that is unknown.
  rate(name, window_s = RATE_S) {
    const [first, last] = this.between(window_s);
    if (!first || !known(first.pool[name]) || !known(last.pool[name])) return null;
    return (last.pool[name] - first.pool[name]) / (last.uptime_s - first.uptime_s);
  }

  latency(kind, q) {
    const [first, last] = this.between(LATENCY_S);
    if (!first || !last.pool.latency || !first.pool.latency) return null;
    const before = first.pool.latency[kind];
    return quantile(
      last.pool.latency.bounds_s,
      last.pool.latency[kind].map((n, i) => n - before[i]),
      q,
    );
  }

  // Return the share of a core that a worker used lately, or null.
  cpu(worker) {
    const [first, last] = this.between(RATE_S);
    const before = first?.pool.workers.find((other) => other.pid === worker.pid && other.slot === worker.slot);
    if (!before || !known(before.cpu_s) || !known(worker.cpu_s)) return null;
    return Math.max(0, worker.cpu_s - before.cpu_s) / (last.uptime_s - first.uptime_s);
  }

  between(window_s) {
    const last = this.samples.at(-1);
    // Half a second of grace: polls are not exactly a second apart.
    const first = this.samples.findLast((sample) => last.at - sample.at >= window_s - 0.5) ?? this.samples[0];
    return first === last ? [null, last] : [first, last];
  }
}

function follows(earlier, later) {
  return (
    later.uptime_s >= earlier.uptime_s &&
    later.pool.requests >= earlier.pool.requests &&
    String(later.pool.latency?.bounds_s) === String(earlier.pool.latency?.bounds_s)
  );
}

function isBusy(worker) {
  return worker.state === "busy";
}

// Who takes new requests: not who boots, and not who finishes what it has and leaves.
function serves(worker) {
  return worker.state === "idle" || worker.state === "busy";
}
