// Answers: the five things that somebody who was woken up wants to know, in the order in which they are asked.
// Each is { label, level: ok|note|warn|bad, icon, verdict, note, link: { href, text } | null }.

const RECENT_S = 3600;
const FRESH_S = 600;
const LASTING_POLLS = 3;

function answers(status, now, room) {
  return [serving(status), slowness(status), room.answer(status), deaths(status, now), deploys(status, now)];
}

function serving(status) {
  const up = `generation ${status.generation}, up ${longDuration(status.uptime_s)}`;
  const said = (level, icon, verdict, note = up) => ({ label: "Service", level, icon, verdict, note });
  if (status.healthy === false) return said("bad", "bad", "Cannot boot workers", up);
  switch (status.state) {
    case "serving":
      return status.ready ? said("ok", "ok", "Serving") : said("bad", "bad", "Not ready", `a pool has no ready worker; ${up}`);
    case "reloading":
      return status.ready ? said("note", "ok", "Serving", `generation ${status.generation}, while it reloads`) : said("bad", "bad", "Not ready", up);
    case "booting":
      return said("note", "booting", "Booting");
    case "draining":
      return said("warn", "draining", "Draining", "it serves on, and is about to stop");
    case "stopping":
      return said("warn", "draining", "Stopping");
    default:
      return said("warn", "note", String(status.state));
  }
}

// Every running request with where it runs, the longest first.
function runningNow(status) {
  const found = [];
  for (const pool of Object.values(status.pools)) {
    for (const worker of pool.workers) {
      for (const request of worker.running) found.push({ worker, request });
    }
  }
  return found.sort((a, b) => b.request.elapsed_s - a.request.elapsed_s);
}

function slowness(status) {
  const slow = runningNow(status).filter(({ request }) => request.slow);
  if (!slow.length) {
    const total = sumOfKnown(Object.values(status.pools).map((pool) => pool.slow));
    return { label: "Slow requests", level: "ok", icon: "ok", verdict: "None", note: total ? `${count(total)} since the start` : "" };
  }
  const { worker, request } = slow[0];
  return {
    label: "Slow requests",
    level: "warn",
    icon: "slow",
    verdict: `${count(slow.length)} now`,
    note: `longest ${elapsed(request.elapsed_s)} in `,
    link: { href: `#${tileId(worker.slot)}`, text: worker.slot },
  };
}

// Whether there is room for more. All workers may well be busy for a moment: it counts when it lasts.
class Room {
  constructor() {
    this.full = new Map(); // pool: for how many polls all its workers have been busy,
    this.crowded = new Map(); // and connections waited besides
  }

  answer(status) {
    const pools = Object.entries(status.pools);
    for (const [name, pool] of pools) {
      const full = pool.workers.some(serves) && !pool.workers.some((worker) => worker.state === "idle");
      const waiting = sumOfKnown(pool.listeners.map((listener) => listener.queue)) > 0;
      this.full.set(name, full ? (this.full.get(name) ?? 0) + 1 : 0);
      this.crowded.set(name, full && waiting ? (this.crowded.get(name) ?? 0) + 1 : 0);
    }
    const workers = pools.flatMap(([, pool]) => pool.workers).filter(serves);
    const queue = sumOfKnown(pools.flatMap(([, pool]) => pool.listeners.map((listener) => listener.queue)));
    const lasting = (streaks) => pools.map(([name]) => name).filter((name) => streaks.get(name) >= LASTING_POLLS);
    const full = lasting(this.full);
    const crowded = lasting(this.crowded);
    const where = pools.length > 1 && full.length ? `${(crowded.length ? crowded : full).join(", ")} is full; ` : "";
    const level = crowded.length ? "bad" : full.length ? "warn" : "ok";
    return {
      label: "Workers",
      level,
      icon: level === "ok" ? "ok" : "slow",
      verdict: `${workers.filter(isBusy).length} of ${workers.length} busy`,
      note: where + (queue ? `${plural(queue, "connection")} waiting` : known(queue) ? "nobody waits" : ""),
    };
  }
}

function deaths(status, now) {
  const unexpected = status.deaths.filter((death) => !death.expected);
  const recent = unexpected.filter((death) => now - Date.parse(death.at) / 1000 < RECENT_S);
  if (!unexpected.length) return { label: "Deaths", level: "ok", icon: "ok", verdict: "None", note: "that were unexpected" };
  const [last] = unexpected;
  const age_s = now - Date.parse(last.at) / 1000;
  const note = `${whose(last)} ${ago(age_s)}: `;
  const link = { href: "#deaths", text: last.reason };
  if (!recent.length) return { label: "Deaths", level: "ok", icon: "ok", verdict: "None this hour", note, link };
  return { label: "Deaths", level: age_s < FRESH_S ? "bad" : "warn", icon: "bad", verdict: `${count(recent.length)} this hour`, note, link };
}

// Reloads and the last upgrade, which has a version, the newest first.
function changes(status) {
  const all = [...(status.reloads ?? [status.last_reload]), status.last_upgrade].filter(known);
  return all.sort((a, b) => Date.parse(b.ended_at) - Date.parse(a.ended_at));
}

function deploys(status, now) {
  const last = changes(status)[0];
  if (status.state === "reloading") {
    const pools = Object.values(status.pools);
    // The server's generation is the old one until the new one has taken over.
    const workers = pools.flatMap((pool) => pool.workers).filter((worker) => worker.generation > status.generation);
    const wanted = sum(pools.map((pool) => pool.workers_wanted));
    const note = workers.length ? `${workers.filter(serves).length} of ${wanted} workers ready` : "loading the application";
    return { label: "Deploy", level: "note", icon: "booting", verdict: "Under way", note };
  }
  if (!last) return { label: "Deploy", level: "ok", icon: "note", verdict: "No reload yet", note: `generation ${status.generation} since the start` };
  const when = ago(now - Date.parse(last.ended_at) / 1000);
  if (last.version) {
    const note = last.result === "ok" ? `from ${last.predecessor}, ${when}` : `${status.version} serves on, ${when}; `;
    return last.result === "ok"
      ? { label: "Deploy", level: "ok", icon: "ok", verdict: `Upgraded to ${last.version}`, note }
      : { label: "Deploy", level: "bad", icon: "bad", verdict: "Upgrade failed", note, link: { href: "#deploys", text: "why" } };
  }
  if (last.result === "ok") {
    return { label: "Deploy", level: "ok", icon: "ok", verdict: "Went through", note: `${when}, in ${duration(last.took_s)}` };
  }
  return {
    label: "Deploy",
    level: "bad",
    icon: "bad",
    verdict: `Failed ${when}`,
    note: `generation ${status.generation} serves on; `,
    link: { href: "#deploys", text: "why" },
  };
}

function answersView() {
  return new List(byId("answers"), "answer", (parts, answer) => {
    setAttribute(parts.node, "class", `answer ${answer.level}`);
    setText(parts.label, answer.label);
    setIcon(parts.icon, answer.icon);
    setText(parts.verdict, answer.verdict);
    setText(parts.note, answer.note);
    setHidden(parts.link, !answer.link);
    if (answer.link) {
      setText(parts.link, answer.link.text);
      setAttribute(parts.link, "href", answer.link.href);
    }
  });
}
