"""Write the comparison into docs/conformance.md, and the cases into a page of their own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.conformance.request import Case
from bench.conformance.servers import SERVERS
from bench.conformance.wire import Outcome
from bench.servers import ROOT

PAGE = ROOT / "docs" / "conformance.md"
DETAILS = ROOT / "docs" / "conformance-cases.md"
BEGIN, END = "<!-- Written by `make conformance` from here -->", "<!-- to here -->"


@dataclass
class Findings:
    """What each server did with each case."""

    versions: Mapping[str, str]
    asked: Sequence[Case]
    outcomes: dict[tuple[str, Case], tuple[Outcome, bool]] = field(default_factory=dict)

    def note(self, server: str, case: Case, outcome: Outcome, allowed: bool) -> None:
        self.outcomes[server, case] = outcome, allowed

    def passed(self, server: str, section: str = "") -> int:
        return sum(
            allowed
            for (name, case), (_, allowed) in self.outcomes.items()
            if name == server and section in ("", case.section)
        )

    def servers(self) -> list[str]:
        """Return those that answered, the best first."""
        names = {name for name, _ in self.outcomes}
        listed = [server.name for server in SERVERS if server.name in names]
        return sorted(listed, key=self.passed, reverse=True)


def write(findings: Findings) -> None:
    """Replace the generated part of the page."""
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    PAGE.write_text("\n".join([before.rstrip("\n"), "", BEGIN, "", *lines(findings), "", END]) + after)
    DETAILS.write_text("\n".join(details(findings)) + "\n")
    print(f"written to {PAGE.relative_to(ROOT)} and {DETAILS.relative_to(ROOT)}")


def lines(findings: Findings) -> Iterator[str]:
    """Yield the generated part of the page."""
    names = findings.servers()
    sections = list(dict.fromkeys(case.section for case in findings.asked))
    packages = {server.name: server.package for server in SERVERS}
    yield "| server | passed | " + " | ".join(sections) + " |"
    yield "|---|---:|" + "---:|" * len(sections)
    counts = [sum(case.section == section for case in findings.asked) for section in sections]
    for name in names:
        version = findings.versions[packages[name]]
        cells = [
            f"{findings.passed(name, section)}/{count}"
            for section, count in zip(sections, counts, strict=True)
        ]
        shown = f"**{name}**" if name == "prefork" else f"{name} {version}"
        yield f"| {shown} | {findings.passed(name)}/{len(findings.asked)} | " + " | ".join(cells) + " |"


def details(findings: Findings) -> Iterator[str]:
    """Yield the lines of the page about single cases."""
    enough = len(findings.asked) * 2 / 3
    names = [name for name in findings.servers() if findings.passed(name) >= enough]
    yield "# Conformance, case by case"
    yield ""
    yield "<!-- Written by `make conformance`; change bench/conformance instead of this page. -->"
    yield ""
    yield "What servers did that is not allowed ([what is](conformance.md#beside-other-servers)): the statuses of the"
    yield "answers, then what the application saw. `/next` is the request behind the case. Servers that passed less"
    yield "than two thirds are left out, and so are cases that went well with all others."
    yield ""
    yield "| case | what came of it |"
    yield "|---|---|"
    for case in findings.asked:
        did = [
            f"{name}: {escaped(findings.outcomes[name, case][0].summary())}"
            for name in names
            if (name, case) in findings.outcomes and not findings.outcomes[name, case][1]
        ]
        if did:
            yield f"| {case.section}: {escaped(case.name)} | {'<br>'.join(did)} |"


def escaped(text: str) -> str:
    """Return what shows as ``text`` in a cell of a table."""
    return re.sub(r"([\\|<>*_`\[\]])", r"\\\1", text)
