"""The alerts and the dashboard in deploy/: Prometheus's own tool accepts them, and they use only metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from prefork.admin.metric_table import BY_NAME, TABLE

DEPLOY = Path(__file__).parent.parent / "deploy"
RULES = DEPLOY / "prometheus" / "prefork.rules.yml"
DASHBOARD = json.loads((DEPLOY / "grafana" / "prefork.json").read_text())


def promtool(*args: str, folder: Path = RULES.parent) -> str:
    """Run promtool, which must accept; return what it says."""
    assert shutil.which("promtool"), "promtool is missing: install Debian's package prometheus (make apt)"
    said = subprocess.run(
        ["promtool", *args], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


def panels() -> Iterator[dict[str, Any]]:
    return (panel for panel in DASHBOARD["panels"] if panel["type"] != "row")


def expressions() -> dict[str, str]:
    """Return the expressions of the dashboard by where they are, with its variables filled in."""
    found = {f"{p['title']} {t['refId']}": t["expr"] for p in panels() for t in p["targets"]}
    notes = DASHBOARD["annotations"]["list"]
    found |= {note["name"]: note["expr"] for note in notes if "expr" in note}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.*), \w+\)", variable["definition"])
            found[f"${variable['name']}"] = selector[1]
    values = {"$__rate_interval": "1m", "$instance": ".*", "$pool": ".*"}
    filled = {}
    for place, expression in found.items():
        for name, value in values.items():
            expression = expression.replace(name, value)
        assert "$" not in expression, place
        filled[place] = expression
    return filled


def samples() -> set[str]:
    """Return every name that a sample of ours can have."""
    parts = ("bucket", "count", "sum")
    histograms = {f"{family.name}_{part}" for family in TABLE for part in parts if family.type == "histogram"}
    return histograms | {family.name for family in TABLE if family.type != "histogram"}


def test_the_configuration_and_the_alerts_are_what_prometheus_takes():
    promtool("check", "config", "prometheus.yml")


def test_each_alert_fires_when_it_should_and_not_otherwise():
    promtool("test", "rules", "prefork.tests.yml")
    tested = (RULES.parent / "prefork.tests.yml").read_text()
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    assert all(rule["alert"] in tested for rule in rules)


def test_the_dashboard_has_what_grafana_needs():
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["id"] is None
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        area = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])}  # fmt: skip
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not area & taken, f"{panel['title']} covers another panel"
        taken |= area
        assert panel["title"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w+)", json.dumps(DASHBOARD)))
    assert used == variables
    assert all(
        target["datasource"]["uid"] == "${datasource}" for panel in panels() for target in panel["targets"]
    )


def test_every_expression_of_the_dashboard_parses(tmp_path):
    rules = [
        {"record": f"panel:{at}", "expr": expression} for at, expression in enumerate(expressions().values())
    ]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", "rules.yml", folder=tmp_path)


@pytest.mark.parametrize("text", [RULES.read_text(), json.dumps(DASHBOARD)], ids=["alerts", "dashboard"])
def test_only_metrics_that_exist_are_used(text):
    named = set(re.findall(r"\bprefork_\w+", text))
    assert len(named) >= 10
    assert named <= samples()


def test_the_dashboard_shows_every_metric_that_is_watched():
    named = set(re.findall(r"\bprefork_\w+", json.dumps(DASHBOARD)))
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for name in named}
    left_out = {
        "prefork_build_info", "prefork_config_info", "prefork_start_time_seconds", "prefork_healthy",
        "prefork_config_last_reload_duration_seconds", "prefork_workers_min", "prefork_workers_max",
        "prefork_worker_rss_bytes", "prefork_application_metrics_skipped",
    }  # fmt: skip
    assert BY_NAME.keys() - shown == left_out
