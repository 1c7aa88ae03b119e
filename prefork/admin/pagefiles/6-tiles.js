// Tiles: one for each worker. A slot keeps its tile while workers come and go in it, so that it can be watched; whoever
// shares a slot with another, as in a reload, has a tile of its own at the end.

const STATES = ["idle", "busy", "booting", "draining"];

function tileId(slot) {
  return `worker-${slot}`;
}

// Return [{ key, worker }], the slots in their order and then the others.
function placed(workers) {
  const slots = new Map();
  for (const worker of workers) {
    const holder = slots.get(worker.slot);
    if (!holder || rank(worker) > rank(holder)) slots.set(worker.slot, worker);
  }
  const others = workers.filter((worker) => slots.get(worker.slot) !== worker);
  return [
    ...[...slots.values()].sort((a, b) => inOrder.compare(a.slot, b.slot)).map((worker) => ({ key: tileId(worker.slot), worker })),
    ...others.map((worker) => ({ key: `${tileId(worker.slot)}-${worker.pid}`, worker, other: true })),
  ];
}

const inOrder = new Intl.Collator("en", { numeric: true });

// Who serves holds the slot; among those the newest.
function rank(worker) {
  const standing = serves(worker) ? 2 : worker.state === "booting" ? 1 : 0;
  return standing * 1e9 + worker.generation;
}

function requestText(request) {
  return `${request.method} ${request.target}`;
}

function updateTile(parts, { key, worker, other }, pool, history) {
  const { node } = parts;
  const slow = worker.running.some((request) => request.slow);
  const current = worker.current ?? worker.running[0] ?? null;
  setAttribute(node, "id", key);
  setAttribute(node, "class", `tile ${worker.state}${slow ? " slow" : ""}${other ? " other" : ""}`);
  setIcon(parts.icon, slow ? "slow" : worker.state);
  const dot = worker.slot.lastIndexOf(".") + 1;
  setText(parts.prefix, worker.slot.slice(0, dot));
  setText(parts.slot, worker.slot.slice(dot));
  setText(parts.state, slow ? "slow" : worker.state);
  setText(parts.elapsed, current && current.elapsed_s >= 0.1 ? elapsed(current.elapsed_s) : "");
  setText(parts.request, current ? requestText(current) : "");
  setAttribute(parts.request, "title", current ? requestText(current) : "");
  const old = worker.generation !== Math.max(...pool.generations, worker.generation);
  const more = [slow && worker.state === "draining" ? "draining" : "", old ? `gen ${worker.generation}` : "", worker.running.length > 1 ? `${worker.running.length} at once` : ""].filter(Boolean);
  const cpu = history.cpu(worker);
  if (known(cpu)) more.push(`${Math.round(cpu * 100)} % CPU`);
  if (known(worker.uss_bytes)) more.push(bytes(worker.uss_bytes));
  more.push(`up ${age(worker.uptime_s ?? 0)}`);
  setText(parts.more, more.join(" · "));
  if (parts.details.open) updateDetails(parts, worker, cpu);
}

function updateDetails(parts, worker, cpu) {
  parts.threadList ??= new List(parts.threads, "thread", (thread, request) => {
    setText(thread.elapsed, elapsed(request.elapsed_s));
    setText(thread.request, requestText(request));
    const where = known(request.thread) ? `thread ${request.thread}` : "";
    setText(thread.note, [where, request.request_id].filter(Boolean).join(" · "));
    setClass(thread.node, "slow", request.slow);
  });
  parts.threadList.show(worker.running, (request) => String(request.thread));
  parts.factList ??= new List(parts.facts, "fact", (fact, [term, value]) => {
    setText(fact.term, term);
    setText(fact.value, value);
  });
  const shared = known(worker.pss_bytes) && known(worker.uss_bytes) ? bytes(Math.max(0, worker.pss_bytes - worker.uss_bytes)) : UNKNOWN;
  const facts = [
    ["pid", known(worker.pid) ? String(worker.pid) : UNKNOWN],
    ["generation", String(worker.generation)],
    ["requests", count(worker.requests)],
    ["errors", count(worker.errors)],
    ["connections", count(worker.connections)],
    ["handed over", count(worker.handed_over)],
    ["private memory", bytes(worker.uss_bytes)],
    ["share of shared", shared],
    ["resident", bytes(worker.rss_bytes)],
    ["CPU", known(cpu) ? `${Math.round(cpu * 100)} %` : UNKNOWN],
    ["CPU time", known(worker.cpu_s) ? duration(worker.cpu_s) : UNKNOWN],
    ["up", longDuration(worker.uptime_s ?? 0)],
  ];
  parts.factList.show(facts, ([term]) => term);
}
