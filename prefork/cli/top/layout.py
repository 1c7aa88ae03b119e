"""The lines of ``top``: what ``history`` knows and ``view`` wants, as text in which each piece has a style.

Pure. Runs in a command. Lines may be wider than the terminal: whoever shows them cuts them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from prefork.cli.figures import UNKNOWN, count, duration, how, printable, rate, share, size, whose
from prefork.cli.top.history import History, Status
from prefork.cli.top.view import Mode, Row, View

Line = list[tuple[str, str]]
"""Pieces of text with a style each: "", dim, head, good, busy, warn, bad or selected."""

STATES = {"idle": "good", "busy": "busy", "booting": "warn", "draining": "warn"}
SERVER_STATES = {
    "serving": "good",
    "reloading": "busy",
    "booting": "warn",
    "draining": "warn",
    "stopping": "warn",
}

NARROW = 100
"""Below so many columns the pid of each worker is left out."""
SILENT_S = 3.0
"""A server that has not answered for so long does not seem to."""
MOST_DEATHS = 5


def layout(
    history: History, view: View, width: int, height: int, now: float, problem: str = ""
) -> list[Line]:
    """Return the lines of a screen, at most ``height``. ``problem``: why the server does not answer."""
    status = history.status
    if status is None:
        return [[(problem or "asking the server ...", "bad" if problem else "dim")]][:height]
    top = [*_head(status), *_silence(history, now, problem), *_reload(status), [], *_pools(status, history)]
    if view.mode is Mode.TEXT:
        room = max(0, height - len(top) - 2)
        shown = [part for line in view.text for part in _wrapped(line, width)][view.scrolled :][:room]
        body: list[Line] = [[], *([(line, "")] for line in shown)]
    else:
        deaths = _deaths(status)[: max(0, min(MOST_DEATHS + 2, height // 4))]
        room = max(1, height - len(top) - len(deaths) - 3)
        body = [[], *_workers(history, view, width, room), *deaths]
    lines = [*top, *body][: height - 1]
    lines += [[]] * (height - 1 - len(lines))
    return [*lines, _foot(view, history)]


def _wrapped(line: str, width: int) -> list[str]:
    """Return a line in pieces that fit; the further ones are indented more."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    step = max(1, width - len(indent))
    return [line[:width], *(indent + line[at : at + step] for at in range(width, len(line), step))]


def _head(status: Status) -> Iterator[Line]:
    state = status["state"]
    yield [
        (f"{status['name']} ", "head"),
        (state, SERVER_STATES.get(state, "")),
        (
            f"  generation {status['generation']}, up {duration(status['uptime_s'])}, pid {status['pid']}, "
            f"prefork {status['version']}",
            "dim",
        ),
    ]


def _silence(history: History, now: float, problem: str) -> Iterator[Line]:
    silent_s = now - (now if history.at is None else history.at)
    if problem or silent_s > SILENT_S:
        yield [(f"no answer for {duration(silent_s)}, this is what was: {printable(problem)}", "bad")]


def _reload(status: Status) -> Iterator[Line]:
    last = status["last_reload"]
    if last is None:
        return
    ended = _clock(last["ended_at"])
    if last["result"] == "ok":
        text = f"reload at {ended} done: generation {last['generation']} in {duration(last['took_s'])}"
        yield [(text, "dim")]
    else:
        error = printable((last["error"] or "").partition("\n")[0])
        yield [(f"reload at {ended} FAILED: {error}", "bad")]


def _pools(status: Status, history: History) -> Iterator[Line]:
    yield [(f"{'POOL':<12}{'REQ/S':>7}{'ERR/S':>7}{'BUSY':>6}{'IDLE':>5}{'WAITING':>12}"
            f"{'P50':>7}{'P95':>7}{'P99':>7}{'CONNS':>7}", "head")]  # fmt: skip
    for name, pool in status["pools"].items():
        traffic = history.traffic(name)
        states = [worker["state"] for worker in pool["workers"]]
        busy = states.count("busy")
        p50, p95, p99 = (f"{duration(each):>7}" for each in traffic.percentiles_s)
        waiting, is_full = _queue(pool)
        connections = pool["connections"]
        known = [each for each in connections.values() if each is not None]
        yield [
            (f"{printable(name):<12.12}{rate(traffic.requests_per_s):>7}", ""),
            (f"{rate(traffic.errors_per_s):>7}", "bad" if traffic.errors_per_s else ""),
            (f"{busy:>6}", "busy" if busy and busy == len(states) else ""),
            (f"{states.count('idle'):>5}", ""),
            (f"{waiting:>12}", "bad" if is_full else ""),
            (f"{p50}{p95}{p99}{count(sum(known)) if known else UNKNOWN:>7}", ""),
        ]


def _queue(pool: Status) -> tuple[str, bool]:
    """Return what waits in the queues of all listeners, and whether that is half of what they hold."""
    known = [(each["queue"], each["backlog"]) for each in pool["listeners"] if each["queue"] is not None]
    if not known:
        return UNKNOWN, False
    waiting, most = (sum(column) for column in zip(*known, strict=True))
    return f"{waiting}/{most}", waiting * 2 >= most > 0


def _workers(history: History, view: View, width: int, room: int) -> Iterator[Line]:
    rows = view.rows(history)
    selected = view.selected_row(history)
    wide = width >= NARROW
    yield [(f"{'SLOT':<10}" + (f"{'PID':>8}" if wide else "")
            + f" {'STATE':<9}{'AGE':>5}{'REQ/S':>6}{'REQS':>7}{'CPU':>5}{'USS':>6}{'PSS':>6}{'MOVED':>6}"
            f"{'FOR':>6} REQUEST", "head")]  # fmt: skip
    at = rows.index(selected) if selected else 0
    first = max(0, min(at - room // 2, len(rows) - room))
    for row in rows[first : first + room]:
        yield _worker(row, history, wide, is_selected=row is selected)
    if not rows:
        yield [(f'no worker matches "{printable(view.filter)}"' if view.filter else "no workers", "dim")]


def _worker(row: Row, history: History, wide: bool, *, is_selected: bool) -> Line:
    worker = row[1]
    work = history.work(*row)
    current = worker["current"]
    request = f"{current['method']} {current['target']}" if current else ""
    slow = "warn" if current and current.get("slow") else ""
    others = len(worker["running"]) - 1
    return [
        (f"{printable(worker['slot']):<10}", "selected" if is_selected else ""),
        (f"{_known(worker['pid']):>8}" if wide else "", ""),
        (f" {worker['state']:<9}", STATES.get(worker["state"], "")),
        (
            f"{duration(worker['uptime_s']):>5}{rate(work.requests_per_s):>6}{count(worker['requests']):>7}"
            f"{share(work.cpu_share):>5}{size(worker['uss_bytes']):>6}{size(worker['pss_bytes']):>6}"
            f"{count(worker['handed_over']):>6}",
            "",
        ),
        (f"{duration(current['elapsed_s']) if current else '':>6} ", slow),
        (printable(request), slow),
        (f" and {others} more" if others > 0 else "", "dim"),
    ]


def _deaths(status: Status) -> list[Line]:
    lines: list[Line] = []
    for death in status["deaths"][:MOST_DEATHS]:
        detail = f": {printable(death['detail'])}" if death["detail"] else ""
        who = f"{whose(death)} pid {_known(death['pid'])}"
        text = f"{_clock(death['at'])} {who} {death['reason']}, {how(death)}{detail}"
        lines.append([(text, "dim" if death["expected"] else "bad")])
    return [[], [("LAST DEATHS", "head")], *lines] if lines else []


def _foot(view: View, history: History) -> Line:
    row = view.selected_row(history)
    match view.mode:
        case Mode.FILTER:
            return [(f"filter: {printable(view.filter)}_", "head"), ("  Enter keeps it, Esc drops it", "dim")]
        case Mode.CONFIRM if row:
            return [(f"recycle {row[1]['slot']}? y or n", "warn")]
        case Mode.TEXT:
            return [("up, down: scroll  q: back", "dim")]
    filtered = f"  filter: {printable(view.filter)}" if view.filter else ""
    keys = f"s: sort ({view.sort})  /: filter  t: stacks  r: recycle  ?: help  q: quit"
    return [(f"{view.note}  " if view.note else "", "warn"), (keys + filtered, "dim")]


def _known(value: object) -> object:
    return UNKNOWN if value is None else value


def _clock(instant: str) -> str:
    """Return the local time of day of an instant in ISO 8601."""
    return datetime.fromisoformat(instant.replace("Z", "+00:00")).astimezone().strftime("%H:%M:%S")


def plain(lines: Sequence[Line], width: int) -> str:
    """Return the lines without their styles, cut to the width of a terminal."""
    return "\n".join("".join(text for text, _ in line)[:width] for line in lines)
