"""The status document as metrics: each figure in its place, nothing that is unknown or not in the table."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from prefork.admin.metric_table import BY_NAME, DEATHS, TABLE
from prefork.admin.metrics import Metrics
from prefork.master import obituary


def worker(slot: str, pid: int, state: str, cpu_s: float | None, running: int = 0) -> dict[str, Any]:
    request = {
        "method": "GET",
        "target": "/",
        "request_id": "x",
        "thread": 0,
        "elapsed_s": 0.1,
        "slow": False,
    }
    return {
        "slot": slot, "pid": pid, "generation": 3, "state": state, "requests": 5, "errors": 0, "handed_over": 0,
        "connections": 1, "current": request if running else None, "running": [request] * running,
        "rss_bytes": 300, "pss_bytes": 200, "uss_bytes": 100, "cpu_s": cpu_s, "uptime_s": 9.0,
    }  # fmt: skip


DEATH = {
    "result": "ok",
    "error": None,
    "generation": 3,
    "took_s": 0.75,
    "ended_at": "2026-01-02T03:04:05+00:00",
}
STATUS: dict[str, Any] = {
    "format": 1, "name": "shop", "version": "1.2", "pid": 7, "state": "serving", "generation": 3, "uptime_s": 100.0,
    "config": ["app.yaml"], "config_hash": "abc", "ready": True, "healthy": True,
    "last_reload": {**DEATH, "result": "failed", "error": "x", "took_s": 0.5},
    "reloads": [{**DEATH, "result": "failed", "error": "x", "took_s": 0.5}, DEATH],
    "reloads_total": {"ok": 2, "failed": 1}, "last_upgrade": None,
    "pools": {
        "web": {
            "workers_wanted": 2, "bounds": {"min": 1, "max": 4}, "threads": 3, "requests": 17, "errors": 2,
            "accepted": 11, "handed_over": 4, "adopted": 3, "slow": 6, "deadlines": 1,
            "received_bytes": 1234, "sent_bytes": 5678,
            "by_method": {"GET": {"2xx": 14, "5xx": 2}, "other": {"4xx": 1}},
            "refused": {"head-too-large": 8, "no-room": 0},
            "connections": {"idle": 5, "reading": 1, "running": 2, "writing": None},
            "latency": {"bounds_s": [0.1, 1.0], "application": [10, 6, 1], "application_sum_s": 7.5,
                        "exchange": [9, 7, 1], "exchange_sum_s": 8.5},
            "spawned": 9, "deaths": {"retired": 6, "died": 1}, "generations": [2, 3],
            "listeners": [{"address": "0.0.0.0:80", "queue": 3, "backlog": 2048},
                          {"address": "unix:/run/x", "queue": None, "backlog": 128}],
            "slots": {"web.0": {"cpu_s": 2.0}, "web.1": {"cpu_s": 2.0}, "web.2": {"cpu_s": None}},
            "workers": [worker("web.0", 11, "idle", 1.5), worker("web.0", 12, "booting", 0.5),
                        worker("web.1", 13, "busy", 2.0, running=2), worker("web.2", 14, "draining", None)],
        }
    },
    "deaths": [],
}  # fmt: skip


class Source:
    metrics_folder: str | None = None

    def __init__(self, status: dict[str, Any]) -> None:
        self.shown = status

    def status(self) -> dict[str, Any]:
        return self.shown

    def is_master_alive(self) -> bool:
        return True


def scrape(
    metrics: Metrics, status: dict[str, Any], accept: str = "", parse: Any = parse_openmetrics
) -> dict[str, float]:
    text = metrics(Source(status), {"HTTP_ACCEPT": accept}).body.decode()
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


EXPECTED = {
    'prefork_config_info{hash="abc",name="shop"}': 1,
    'prefork_state{state="serving"}': 1,
    'prefork_state{state="reloading"}': 0,
    "prefork_ready": 1,
    "prefork_healthy": 1,
    "prefork_generation": 3,
    'prefork_reloads_total{result="ok"}': 2,
    'prefork_reloads_total{result="failed"}': 1,
    "prefork_config_last_reload_successful": 0,
    "prefork_config_last_reload_success_timestamp_seconds": 1767323045,
    "prefork_config_last_reload_duration_seconds": 0.5,
    'prefork_requests_total{code="2xx",method="GET",pool="web"}': 14,
    'prefork_requests_total{code="5xx",method="GET",pool="web"}': 2,
    'prefork_requests_total{code="4xx",method="other",pool="web"}': 1,
    'prefork_requests_total{code="5xx",method="POST",pool="web"}': 0,
    'prefork_requests_in_flight{pool="web"}': 2,
    'prefork_request_duration_seconds_bucket{le="0.1",pool="web"}': 10,
    'prefork_request_duration_seconds_bucket{le="1.0",pool="web"}': 16,
    'prefork_request_duration_seconds_bucket{le="+Inf",pool="web"}': 17,
    'prefork_request_duration_seconds_count{pool="web"}': 17,
    'prefork_request_duration_seconds_sum{pool="web"}': 7.5,
    'prefork_exchange_duration_seconds_bucket{le="0.1",pool="web"}': 9,
    'prefork_exchange_duration_seconds_sum{pool="web"}': 8.5,
    'prefork_request_bytes_total{pool="web"}': 1234,
    'prefork_response_bytes_total{pool="web"}': 5678,
    'prefork_slow_requests_total{pool="web"}': 6,
    'prefork_request_deadlines_total{pool="web"}': 1,
    'prefork_refused_total{pool="web",reason="head-too-large"}': 8,
    'prefork_refused_total{pool="web",reason="malformed"}': 0,
    'prefork_connections{pool="web",state="idle"}': 5,
    'prefork_connections{pool="web",state="writing"}': None,
    'prefork_connections_accepted_total{pool="web"}': 11,
    'prefork_connections_handed_over_total{pool="web"}': 4,
    'prefork_connections_adopted_total{pool="web"}': 3,
    'prefork_listen_queue{address="0.0.0.0:80",pool="web"}': 3,
    'prefork_listen_queue_limit{address="0.0.0.0:80",pool="web"}': 2048,
    'prefork_listen_queue{address="unix:/run/x",pool="web"}': None,
    'prefork_listen_queue_limit{address="unix:/run/x",pool="web"}': 128,
    'prefork_workers{pool="web",state="idle"}': 1,
    'prefork_workers{pool="web",state="booting"}': 1,
    'prefork_workers{pool="web",state="busy"}': 1,
    'prefork_workers{pool="web",state="draining"}': 1,
    'prefork_workers_wanted{pool="web"}': 2,
    'prefork_workers_min{pool="web"}': 1,
    'prefork_workers_max{pool="web"}': 4,
    'prefork_worker_threads{pool="web"}': 3,
    'prefork_pool_generations{pool="web"}': 2,
    'prefork_worker_spawns_total{pool="web"}': 9,
    'prefork_worker_deaths_total{pool="web",reason="retired"}': 6,
    'prefork_worker_deaths_total{pool="web",reason="died"}': 1,
    'prefork_worker_deaths_total{pool="web",reason="oom-killed"}': 0,
    'prefork_worker_cpu_seconds_total{pool="web",slot="web.0"}': 2.0,
    'prefork_worker_cpu_seconds_total{pool="web",slot="web.1"}': 2.0,
    'prefork_worker_cpu_seconds_total{pool="web",slot="web.2"}': None,
    'prefork_worker_uss_bytes{pool="web",slot="web.0"}': 200,
    'prefork_worker_pss_bytes{pool="web",slot="web.1"}': 200,
    'prefork_worker_rss_bytes{pool="web",slot="web.1"}': 300,
}


@pytest.mark.parametrize(
    ("accept", "parse"),
    [("application/openmetrics-text; version=1.0.0", parse_openmetrics), ("text/plain", parse_classic)],
    ids=["openmetrics", "classic"],
)
def test_each_figure_has_its_place(accept, parse):
    found = scrape(Metrics(), STATUS, accept, parse)
    assert {name: found.get(name) for name in EXPECTED} == EXPECTED
    shown = {name.partition("{")[0] for name in found}
    in_table = {
        name
        for family in TABLE
        for name in (
            [f"{family.name}_{part}" for part in ("bucket", "count", "sum")]
            if family.type == "histogram"
            else [family.name]
        )
    }
    assert in_table - shown == {"prefork_application_metrics_skipped"}
    assert shown <= in_table


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/openmetrics-text; version=1.0.0"),
        ("*/*", "application/openmetrics-text; version=1.0.0"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.4,*/*;q=0.2",
            "application/openmetrics-text",
        ),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "text/plain"),
    ],
)
def test_the_format_is_what_the_client_takes(accept, expected):
    assert Metrics()(Source(STATUS), {"HTTP_ACCEPT": accept}).content_type.startswith(expected)


def test_what_is_unknown_is_left_out():
    status = copy.deepcopy(STATUS)
    status.update(last_reload=None, reloads=[], reloads_total={"ok": 0, "failed": 0})
    pool = status["pools"]["web"]
    pool.update(bounds=None, slow=None, received_bytes=None, latency=None)
    for each in pool["workers"]:
        each.update(uss_bytes=None)
    pool["slots"]["web.0"]["cpu_s"] = pool["slots"]["web.1"]["cpu_s"] = None
    found = scrape(Metrics(), status)
    gone = ("_bytes_total", "uss", "duration_seconds_", "cpu", "slow_req", "_min", "_max")
    assert {name for name in found if name.partition("{")[0].endswith(gone[:1])} == {
        'prefork_response_bytes_total{pool="web"}'
    }
    assert not [name for name in found if any(part in name for part in gone[1:])]
    assert found["prefork_config_last_reload_successful"] == 1
    applied = found["prefork_config_last_reload_success_timestamp_seconds"]
    assert applied == found["prefork_start_time_seconds"]


def test_every_reason_of_a_death_counts_from_nothing():
    assert {"died", "oom-killed"} | obituary.WHY.keys() == set(DEATHS)


def test_names_keep_to_the_conventions():
    for family in TABLE:
        assert family.name.startswith("prefork_")
        assert (family.type == "counter") == family.name.endswith("_total"), family.name
        assert family.meaning.endswith(".")
    fixed = (
        "requests_total request_duration_seconds workers worker_deaths_total listen_queue listen_queue_limit "
        "connections connections_handed_over_total slow_requests_total request_deadlines_total refused_total "
        "reloads_total config_last_reload_successful config_last_reload_success_timestamp_seconds generation build_info"
    )
    assert {f"prefork_{name}" for name in fixed.split()} <= BY_NAME.keys()
