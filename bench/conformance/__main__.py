"""``python -m bench.conformance``: install the servers, ask each, and write the comparison into docs/conformance.md."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys

from bench.conformance.app import REPORT_TO
from bench.conformance.cases import cases
from bench.conformance.report import Findings, write
from bench.conformance.request import Case
from bench.conformance.servers import ALSO, SERVERS
from bench.conformance.wire import Outcome, Reports, converse, run
from bench.measure import running
from bench.servers import HOME, Server, install, pip

TOOL_S = 300.0


def main() -> int:
    """Return 1 if prefork was asked, and does anything that is not allowed."""
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description="Compare servers.")
    parser.add_argument("--only", nargs="+", metavar="SERVER", help="these alone, and do not write the page")
    parser.add_argument(
        "--case", metavar="TEXT", help="only cases with this in their name; do not write the page"
    )
    parser.add_argument(
        "--tool",
        metavar="COMMAND",
        help="run this against each server instead, with {host} and {port} filled in; do not write the page",
    )
    options = parser.parse_args()

    HOME.mkdir(parents=True, exist_ok=True)
    servers = [server for server in SERVERS if not options.only or server.name in options.only]
    asked = [case for case in cases() if not options.case or options.case in f"{case.section}: {case.name}"]
    versions = install(servers)
    for package, needed in ALSO.items():
        if package in versions:
            pip(*needed)
    reports_path = HOME / "conformance.sock"
    os.environ[REPORT_TO] = str(reports_path)
    reports = Reports(reports_path)
    findings = Findings(versions, asked)
    for server in servers:
        if server.package not in versions:
            continue
        if options.tool:
            run_tool(server, options.tool)
        else:
            ask(server, asked, reports, findings)
    reports.close()
    reports_path.unlink()
    if not options.only and not options.case and not options.tool:
        write(findings)
    if options.tool or "prefork" not in {server.name for server in servers}:
        return 0
    return 0 if findings.passed("prefork") == len(asked) else 1


def ask(server: Server, asked: list[Case], reports: Reports, findings: Findings) -> None:
    """Start a server, send it all cases one after the other, and note what it does that is not allowed."""
    try:
        with running(server, access_log=False) as (_, port):
            for case in asked:
                outcome = see(port, reports, case)
                allowed = case.allowed(outcome)
                findings.note(server.name, case, outcome, allowed)
                if not allowed:
                    print(f"  {server.name}: {case.section}: {case.name}: {outcome.summary()}", flush=True)
    except (RuntimeError, OSError) as error:
        print(f"  {server.name}: {error}")
    print(f"{server.name}: {findings.passed(server.name)} of {len(asked)}", flush=True)


def run_tool(server: Server, command: str) -> None:
    """Run somebody else's suite against a server, and show what it says."""
    print(f"== {server.name}", flush=True)
    try:
        with running(server, access_log=False) as (_, port):
            words = shlex.split(command.format(host="127.0.0.1", port=port))
            subprocess.run(words, check=False, timeout=TOOL_S)
    except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
        print(f"  {server.name}: {error}", flush=True)


def see(port: int, reports: Reports, case: Case) -> Outcome:
    if case.body is not None:
        return converse(port, reports, case.data, case.body)
    return run(port, reports, case.data, then=case.then, half_close=case.half_close)


if __name__ == "__main__":
    sys.exit(main())
