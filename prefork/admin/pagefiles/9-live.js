// Live: asks for the status each second while somebody can see the page, and says so when nobody answers.

const POLL_MS = 1000;
const PATIENCE_MS = 5000;
const FORMAT = 1;

// Relative to this page, so that a proxy may serve it under a prefix, with or without the slash at the end.
const STATUS_URL = new URL("status", `${location.origin}${location.pathname.replace(/\/?$/, "/")}`);

class Live {
  constructor() {
    this.answers = answersView();
    this.events = new EventsView();
    this.room = new Room();
    this.pools = new List(byId("pools"), () => { const view = new PoolView(); return { node: view.parts.node, view }; }, ({ view }, [name, pool]) => view.show(name, pool, this.at, this.status.uptime_s));
    this.announcer = new Announcer();
    this.paused = false;
    this.timer = null;
    this.answeredAt = null; // wall clock, for people
    this.failingSince = null;
    this.failures = 0;
    this.skew_s = 0; // what to add to this browser's clock to get the server's
    byId("pause").addEventListener("click", () => this.pause(!this.paused));
    document.addEventListener("visibilitychange", () => this.schedule(0));
    this.schedule(0);
  }

  pause(on) {
    this.paused = on;
    setAttribute(byId("pause"), "aria-pressed", String(on));
    setText(byId("pause"), on ? "Resume" : "Pause");
    this.schedule(0);
    this.showPulse();
  }

  schedule(delay_ms) {
    clearTimeout(this.timer);
    if (document.hidden || this.paused || this.asking) return;
    this.timer = setTimeout(() => this.poll(), delay_ms);
  }

  async poll() {
    const begun = performance.now();
    this.asking = true;
    try {
      this.take(await this.ask());
      this.failingSince = null;
      this.failures = 0;
    } catch (error) {
      if (!document.hidden) this.fail(error);
    }
    this.asking = false;
    this.showPulse();
    this.schedule(Math.max(100, POLL_MS - (performance.now() - begun)));
  }

  async ask() {
    const response = await fetch(STATUS_URL, {
      cache: "no-store",
      credentials: "same-origin",
      headers: { Accept: "application/json" },
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    if (response.status === 401) throw new Told("The server wants its token", "Load this page again to sign in.");
    if (!response.ok) throw new Told("The server does not tell its status", `${await reason(response)}.`);
    const date = Date.parse(response.headers.get("date")) / 1000;
    const skew_s = date - Date.now() / 1000;
    this.skew_s = Math.abs(skew_s) > 2 ? skew_s : 0; // the header has whole seconds only
    const status = await response.json();
    if (status.format !== FORMAT) throw new Told("The server is newer than this page", "Load the page again.");
    return status;
  }

  take(status) {
    this.status = status;
    this.at = performance.now() / 1000;
    this.answeredAt = new Date();
    const now = Date.now() / 1000 + this.skew_s;
    const told = answers(status, now, this.room);
    this.told = told;
    this.answers.show(told, (answer) => answer.label);
    this.pools.show(Object.entries(status.pools), ([name]) => name);
    this.events.show(status, now);
    setText(byId("name"), status.name);
    setText(byId("identity"), `prefork ${status.version} · pid ${status.pid}`);
    setText(byId("config"), `${status.config.join(", ") || "no config file"}${status.config_hash ? ` · ${status.config_hash}` : ""}`);
    byId("main").removeAttribute("data-waiting");
    this.showTitle(status.name, told);
    this.announcer.hear(status, told);
    setHidden(byId("outage"), true);
    setClass(document.body, "stale", false);
  }

  fail(error) {
    this.failures += 1;
    this.failingSince ??= this.answeredAt ?? new Date();
    if (this.failures === 1 && error.name !== "TimeoutError") return; // one lost answer wakes nobody
    const told = error instanceof Told;
    const for_s = (Date.now() - this.failingSince) / 1000;
    setText(byId("outage-what"), `${told ? error.message : "No answer from the server"} since ${clock(this.failingSince)}.`);
    const hint = told ? error.hint : error.name === "TimeoutError" ? `Nothing came within ${PATIENCE_MS / 1000} s.` : "";
    const silence = { label: "Service", level: "bad", icon: "bad", verdict: "No answer", note: `since ${clock(this.failingSince)}` };
    if (this.told) this.answers.show([silence, ...this.told.slice(1)], (answer) => answer.label);
    const old = this.answeredAt ? "What you see below is from then." : "";
    setText(byId("outage-more"), [hint, `${longDuration(for_s)} and ${plural(this.failures, "attempt")} ago; it goes on trying.`, old].filter(Boolean).join(" "));
    setHidden(byId("outage"), false);
    setClass(document.body, "stale", true);
    document.title = `✕ ${byId("name").textContent}: no answer`;
    setFavicon("bad");
    this.announcer.say("outage", told ? error.message : `No answer from the server since ${clock(this.failingSince)}`);
  }

  showPulse() {
    const state = this.paused ? "paused" : this.failures ? "lost" : "live";
    const since = this.answeredAt ? clock(this.answeredAt) : "never";
    setAttribute(byId("pulse"), "data-state", state);
    setText(byId("pulse-text"), { live: `live, ${since}`, paused: `paused at ${since}`, lost: `last answer ${since}` }[state]);
  }

  showTitle(name, told) {
    const worst = ["bad", "warn"].map((level) => told.find((answer) => answer.level === level)).find(Boolean);
    const title = worst ? `${worst.level === "bad" ? "✕" : "▲"} ${name}: ${worst.label.toLowerCase()}, ${worst.verdict.toLowerCase()}` : `${name}: ${told[0].verdict.toLowerCase()}`;
    if (document.title !== title) document.title = title;
    setFavicon(worst?.level ?? "ok");
  }
}

// What the server says of its refusal: its status, and a line for people.
async function reason(response) {
  const plain = response.headers.get("content-type")?.startsWith("text/plain");
  return plain ? (await response.text()).slice(0, 300).trim().split("\n").join(": ") : `It says ${response.status}`;
}

// A failure that the page understands, with what to do.
class Told extends Error {
  constructor(message, hint) {
    super(message);
    this.hint = hint;
  }
}

// Says aloud, politely, what has changed for good or bad; never the figures, which change each second.
class Announcer {
  constructor() {
    this.said = new Map();
  }

  hear(status, told) {
    const reload = status.last_reload;
    const death = status.deaths.find((each) => !each.expected);
    const changes = [
      this.changed("outage", ""),
      this.changed("service", `${status.name}: ${told[0].verdict}`),
      this.changed("reload", reload ? `Reload ${reload.result === "ok" ? `went through, generation ${reload.generation}` : `failed: ${lastLine(reload.error)}`}` : "", reload?.ended_at),
      this.changed("death", death ? `${whose(death)} died: ${death.reason}` : "", `${death?.at} ${death?.pid}`),
      this.changed("slow", told[1].level === "ok" ? "No slow request any more" : "There are slow requests"),
    ];
    const news = changes.filter(Boolean);
    if (news.length) setText(byId("announcer"), news.join(". "));
  }

  say(topic, text) {
    if (this.changed(topic, text, topic)) setText(byId("announcer"), text);
  }

  // Return the text when it is news; what was there at the first look is not.
  changed(topic, text, identity = text) {
    const first = !this.said.has(topic);
    const news = this.said.get(topic) !== identity;
    this.said.set(topic, identity);
    return news && (!first || topic === "service" || topic === "outage") ? text : "";
  }
}

function clock(date) {
  return date.toLocaleTimeString("en-GB");
}

const FAVICON = { ok: ["#12743b", "M4 8.4l2.8 2.9L12 4.9"], warn: ["#b36a00", "M8 3.6v5.2M8 11v1.4"], bad: ["#bd1a2b", "M4.6 4.6l6.8 6.8m0-6.8l-6.8 6.8"] };

function setFavicon(level) {
  const [colour, sign] = FAVICON[level] ?? FAVICON.ok;
  const svg = `<svg xmlns="${SVG}" viewBox="0 0 16 16"><rect width="16" height="16" rx="4" fill="${colour}"/><path d="${sign}" fill="none" stroke="#fff" stroke-width="2"/></svg>`;
  setAttribute(document.querySelector("link[rel=icon]"), "href", `data:image/svg+xml,${encodeURIComponent(svg)}`);
}

new Live();
