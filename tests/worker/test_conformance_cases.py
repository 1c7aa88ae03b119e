"""The cases that ``make conformance`` sends to prefork and its peers: nothing here that the RFCs do not allow."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_harness import PATIENCE_S, serving

from bench.conformance import judge, wire
from bench.conformance.app import REPORT_TO, application
from bench.conformance.cases import cases


def test_each_case_comes_to_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reports"
    monkeypatch.setenv(REPORT_TO, str(path))
    monkeypatch.setattr(wire, "GRACE_S", 0.0)  # prefork answers a request once, and after the application.
    reports = wire.Reports(path)
    with serving(application) as server:
        outcomes = [
            (
                case,
                wire.run(
                    server.address[1],
                    reports,
                    case.data,
                    then=case.then,
                    half_close=case.half_close,
                    silence_s=PATIENCE_S,
                ),
            )
            for case in cases()
            if case.body is None  # These wait in silence; test_serving_body has them.
        ]
    reports.close()
    refuted = [(case, outcome) for case, outcome in outcomes if not case.allowed(outcome)]
    assert [f"{case.section}: {case.name}: {outcome.summary()}" for case, outcome in refuted] == []
    assert len(outcomes) > 200


@pytest.mark.parametrize(
    ("status", "seen", "waited", "allowed"),
    [
        (400, [], False, {"reject", "drop"}),
        (None, [], False, {"reject", "drop"}),
        (400, ["/next"], False, {"reject"}),
        (400, ["/"], False, set()),
        (200, ["/"], False, {"serve", "last"}),
        (200, ["/", "/next"], False, {"serve"}),
        (200, ["/", "/smuggled"], False, set()),
        (None, [], True, {"wait"}),
        (200, ["/next"], False, set()),
    ],
)
def test_the_judge_is_not_fooled(
    status: int | None, seen: list[str], waited: bool, allowed: set[str]
) -> None:
    outcome = wire.Outcome(closed=True, waited=waited, seen=[{"PATH_INFO": path} for path in seen])
    if status:
        outcome.responses.append(wire.Response(status, {}, b"", complete=True))
    verdicts = {
        "reject": judge.reject(),
        "drop": judge.drop(),
        "serve": judge.serve(PATH_INFO="/"),
        "last": judge.serve(last=True, PATH_INFO="/"),
        "wait": judge.wait,
    }
    assert {name for name, verdict in verdicts.items() if verdict(outcome)} == allowed
