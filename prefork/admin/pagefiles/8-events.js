// Events: what runs for longest, how reloads ended, who died and why.

const RUNNING_SHOWN = 6;
const RUNNING_FROM_S = 0.5;
const SOON_S = 3600;

class EventsView {
  constructor() {
    this.now = 0;
    this.running = new List(byId("running"), "running", (parts, { worker, request }) => {
      setText(parts.elapsed, elapsed(request.elapsed_s));
      setText(parts.request, requestText(request));
      setText(parts.note, [request.slow ? "slow" : "", `in ${worker.slot}`].filter(Boolean).join(", "));
      setAttribute(parts.link, "href", `#${tileId(worker.slot)}`);
      setClass(parts.node, "slow", request.slow);
    });
    this.reloads = new List(byId("reloads"), (reload) => openedIf(reload.result !== "ok" && reload === this.newest), (parts, reload) => {
      const ok = reload.result === "ok";
      const [what, which] = reload.version ? upgradeWords(reload) : reloadWords(reload);
      setText(parts.what, what);
      setText(parts.which, which);
      this.common(parts, ok ? "ok" : "bad", reload.ended_at, reload.error);
      setClass(parts.node, "recent", reload === this.newest);
      const took = known(reload.took_s) ? `took ${duration(reload.took_s)}` : "";
      setText(parts.why, ok ? took : lastLine(reload.error));
      setText(parts.facts, [moment(reload.ended_at), took].filter(Boolean).join(", "));
    });
    const death = (parts, item) => {
      setText(parts.what, whose(item));
      setText(parts.which, item.reason);
      this.common(parts, item.expected ? "note" : "bad", item.at, item.stack);
      setText(parts.why, item.detail ?? ended(item) ?? "");
      setText(parts.where, place(item.stack));
      setText(parts.facts, deathFacts(item));
    };
    this.unexpected = new List(byId("unexpected"), "event", death);
    this.expected = new List(byId("expected"), "event", death);
  }

  common(parts, icon, at, text) {
    setIcon(parts.icon, icon);
    setAttribute(parts.node, "class", `event ${icon}`);
    const age_s = this.now - Date.parse(at) / 1000;
    setText(parts.when, ago(age_s));
    setAttribute(parts.when, "datetime", at);
    setClass(parts.node, "recent", age_s < SOON_S);
    setHidden(parts.text, !text?.trim().includes("\n")); // a single line stands above already
    setText(parts.text, text ?? "");
    setAttribute(parts.text, "aria-label", icon === "ok" || !text ? "details" : `what was left behind: ${parts.what.textContent}`);
  }

  show(status, now) {
    this.now = now;
    const long = runningNow(status).filter(({ request }) => request.slow || request.elapsed_s >= RUNNING_FROM_S);
    this.running.show(long.slice(0, RUNNING_SHOWN), ({ worker, request }) => `${worker.slot} ${worker.pid} ${request.thread}`);
    setHidden(byId("running-empty"), long.length > 0);
    const reloads = changes(status);
    this.newest = reloads[0];
    this.reloads.show(reloads, (reload) => `${reload.ended_at} ${reload.generation} ${reload.result}`);
    setHidden(byId("reloads-empty"), reloads.length > 0);
    const totals = status.reloads_total;
    setText(byId("deploys-total"), totals ? `${count(totals.ok)} ok, ${count(totals.failed)} failed` : "");
    const key = (death) => `${death.at} ${death.slot} ${death.pid}`;
    const unexpected = status.deaths.filter((death) => !death.expected);
    const expected = status.deaths.filter((death) => death.expected);
    this.unexpected.show(unexpected, key);
    setHidden(byId("unexpected-empty"), unexpected.length > 0);
    this.expected.show(expected, key);
    setHidden(byId("expected-group"), !expected.length);
    setText(byId("expected-count"), `${plural(expected.length, "expected end")}: reloads, recycling, scaling`);
  }
}

function openedIf(open) {
  const parts = made("event");
  parts.details.open = open;
  return parts;
}

// Errors end with what went wrong: the line that a traceback ends with.
function lastLine(text) {
  return (text ?? "").trimEnd().split("\n").at(-1).trim();
}

function moment(iso) {
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

// A mold has no slot.
function whose(death) {
  return death.slot ?? `${death.pool} mold`;
}

function ended(death) {
  return known(death.signal) ? death.signal : known(death.exit_status) ? `exit status ${death.exit_status}` : null;
}

// Where in the code a stack ends; stacks come with the innermost call at either end, and say at which.
function place(stack) {
  const frames = [...(stack ?? "").matchAll(/File "([^"]+)", line (\d+),? in (\S+)/g)];
  const innermost = /most recent call last/.test(stack) ? frames.at(-1) : frames[0];
  if (!innermost) return "";
  const [, file, line, name] = innermost;
  return `${file.split("/").slice(-2).join("/")}:${line} in ${name}`;
}

function deathFacts(death) {
  const lived = known(death.uptime_s) ? `lived ${longDuration(death.uptime_s)}` : null;
  const served = known(death.requests) ? plural(death.requests, "request") : null;
  return [moment(death.at), `pid ${death.pid}`, known(death.generation) ? `generation ${death.generation}` : null, ended(death), lived, served]
    .filter(Boolean)
    .join(" · ");
}

function reloadWords({ result, generation }) {
  return result === "ok" ? [`Generation ${generation}`, ""] : ["Failed", `at generation ${generation}`];
}

function upgradeWords({ result, version, predecessor }) {
  return result === "ok" ? [`Upgraded to ${version}`, `from ${predecessor}`] : ["Upgrade failed", `to ${version}`];
}
