"""The deployment files say what docs/deployment.md promises, and the tools that read them accept them."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"
GRACEFUL_S, KEEP_ALIVE_S = 25, 75


def seconds(text: str) -> int:
    return int(re.fullmatch(r"(\d+)s?", text)[1])


def setting(file: str, pattern: str) -> str:
    found = re.search(rf"^\s*{pattern}", (DEPLOY / file).read_text(), re.MULTILINE)
    assert found, f"{file} has no line like {pattern}"
    return found[1]


def test_the_image_starts_prefork_itself_as_somebody_else_than_root():
    for instruction in ("ENTRYPOINT", "CMD"):
        words = json.loads(setting("Dockerfile", rf"{instruction} (\[.*\])$"))
        assert words[0] == {"ENTRYPOINT": "prefork", "CMD": "-c"}[instruction]
    assert int(setting("Dockerfile", r"USER (\d+):\d+$")) > 0
    assert "HEALTHCHECK" in (DEPLOY / "Dockerfile").read_text()


def test_whatever_stops_it_waits_longer_than_the_drain():
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["shop"]
    assert compose["read_only"] is True
    assert seconds(compose["stop_grace_period"]) > GRACEFUL_S
    assert seconds(setting("systemd/prefork.service", r"TimeoutStopSec=(\w+)$")) > GRACEFUL_S


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("nginx.conf", r"keepalive_timeout (\w+);"),
        ("haproxy.cfg", r"server .*pool-purge-delay (\w+)"),
    ],
)
def test_proxies_close_idle_connections_first(file, pattern):
    assert seconds(setting(file, pattern)) < KEEP_ALIVE_S


@pytest.mark.parametrize(
    "line",
    [
        "Type=notify",
        "ExecReload=/srv/shop/venv/bin/prefork reload -c /etc/prefork/shop.yaml",
        "KillMode=mixed",
        "OOMPolicy=continue",
    ],
)
def test_the_unit_has(line):
    assert line in (DEPLOY / "systemd" / "prefork.service").read_text().splitlines()


def test_systemd_accepts_the_units(tmp_path):
    for name in ("prefork.service", "prefork.socket"):
        text = (DEPLOY / "systemd" / name).read_text()
        # What is not on this machine is replaced by what is: verify looks for the program.
        (tmp_path / name).write_text(
            re.sub(r"^Exec(Start|Reload)=\S+", r"Exec\1=/bin/true", text, flags=re.MULTILINE)
        )
    command = [
        "systemd-analyze",
        "verify",
        "--man=no",
        str(tmp_path / "prefork.service"),
        str(tmp_path / "prefork.socket"),
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in (said.stdout + said.stderr).splitlines() if "prefork." in line]
    assert not complaints
