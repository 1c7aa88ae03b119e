// Pools: charts, listeners and tiles of each.

const DENSE_FROM = 25; // so many tiles get the small form

class PoolView {
  constructor() {
    this.history = new History();
    this.parts = made("pool");
    this.charts = {
      requests: new Chart("Requests", [{ name: "requests", unit: "requests/s", area: true }, { name: "errors", unit: "errors/s", area: true }], { text: rate, least: 5 }),
      latency: new Chart("Time in the application", [{ name: "p50" }, { name: "p95" }, { name: "p99" }], { log: true, text: duration }),
      busy: new Chart("Busy workers", [{ name: "busy", area: true }, { name: "workers", unit: "serve" }]),
      queue: new Chart("Queue", [{ name: "queue", unit: "waiting", area: true }], { least: 5 }),
      memory: new Chart("Memory", [{ name: "all", unit: "in all", area: true }, { name: "private", area: true }], { text: bytes, least: 1048576, base: 1024 }),
    };
    for (const [name, chart] of Object.entries(this.charts)) {
      chart.parts.node.classList.add(`chart-${name}`);
      this.parts.charts.append(chart.parts.node);
    }
    this.listeners = new List(this.charts.queue.parts.below, "listener", (parts, listener) => {
      setText(parts.address, listener.address);
      setText(parts.depth, known(listener.queue) ? `${count(listener.queue)} of ${count(listener.backlog)}` : "unknown");
      const full = known(listener.queue) && listener.backlog ? Math.min(1, listener.queue / listener.backlog) : 0;
      parts.bar.style.setProperty("width", `${(full * 100).toFixed(1)}%`);
      setClass(parts.node, "alarm", full >= 0.5);
    });
    this.census = new List(this.parts.census, "census", (parts, [state, n]) => {
      setIcon(parts.icon, state);
      setText(parts.text, `${n} ${state}`);
      setAttribute(parts.node, "class", state);
    });
    this.tiles = new List(
      this.parts.tiles,
      () => {
        const tile = made("tile");
        tile.details.addEventListener("toggle", () => this.latest && this.showTiles());
        return tile;
      },
      (parts, item) => updateTile(parts, item, this.latest, this.history),
    );
  }

  show(name, pool, at, uptime_s) {
    this.latest = pool;
    this.history.add(pool, at, uptime_s);
    setText(this.parts.name, name);
    setText(this.parts.facts, poolFacts(pool));
    this.showCharts(pool, at);
    this.showTiles();
  }

  showTiles() {
    const { workers } = this.latest;
    const slow = workers.filter((worker) => worker.running.some((request) => request.slow)).length;
    const counts = STATES.map((state) => [state, workers.filter((worker) => worker.state === state).length]);
    this.census.show([...(slow ? [["slow", slow]] : []), ...counts].filter(([, n]) => n), ([state]) => state);
    setClass(this.parts.tiles, "dense", workers.length >= DENSE_FROM);
    this.tiles.show(placed(workers), (item) => item.key);
    setHidden(this.parts.nobody, workers.length > 0);
  }

  showCharts(pool, now) {
    const { points } = this.history;
    const last = points.at(-1);
    const errors = this.history.rate("errors");
    this.charts.requests.show(points, now, [
      { text: rate(this.history.rate("requests")), unit: "per second", name: "requests" },
      { text: rate(errors), unit: "errors/s", name: errors > 0 ? "errors" : undefined, alarm: errors > 0, minor: true },
    ]);
    const quantiles = [["p50", 0.5], ["p95", 0.95], ["p99", 0.99]];
    this.charts.latency.show(
      points,
      now,
      quantiles.map(([name, q]) => ({ text: quantileText(this.history.latency("application", q)), unit: name, name })),
    );
    const whole = this.history.latency("exchange", 0.95);
    setText(this.charts.latency.parts.below, whole ? `first to last byte: p95 ${quantileText(whole)}` : "");
    this.charts.busy.show(points, now, [
      { text: count(last.busy), unit: `of ${plural(last.workers, "worker")}`, name: "busy" },
      { text: shortCount(sumOfKnown(Object.values(pool.connections ?? {}))), unit: "connections open", minor: true },
    ]);
    this.charts.queue.show(points, now, [{ text: count(last.queue), unit: "waiting", name: "queue", alarm: last.queue > 0 && last.busy >= last.workers }]);
    this.listeners.show(pool.listeners, (listener) => listener.address);
    const shared = known(last.all) && known(last.private) ? Math.max(0, last.all - last.private) : null;
    this.charts.memory.show(points, now, [
      { text: bytes(last.all), unit: "in all" },
      { text: bytes(last.private), unit: "private", name: "private", minor: true },
      { text: bytes(shared), unit: "shared", name: "all", minor: true },
    ]);
  }
}

function poolFacts(pool) {
  const facts = [`${count(pool.workers_wanted)} workers wanted`];
  if (pool.bounds) facts[0] += ` (${pool.bounds.min} to ${pool.bounds.max})`;
  if (pool.threads > 1) facts.push(`${pool.threads} threads each`);
  facts.push(plural(pool.requests, "request"), plural(pool.errors, "error"));
  if (pool.slow) facts.push(`${count(pool.slow)} slow`);
  if (pool.deadlines) facts.push(`${count(pool.deadlines)} past the deadline`);
  if (pool.handed_over) facts.push(`${count(pool.handed_over)} handed over`);
  const refused = sum(Object.values(pool.refused ?? {}));
  if (refused) facts.push(`${count(refused)} refused`);
  return facts.join(" · ");
}
