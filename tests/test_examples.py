"""The example shop itself, without a server: what it answers, and that many processes may open it first."""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    monkeypatch.setenv("SHOP_DATA", str(tmp_path / "shop"))
    import shop

    # Not shop.app: another test of this process may have imported it with another $SHOP_DATA.
    return shop.create_app().test_client()


@pytest.mark.parametrize(
    ("target", "status", "contains"),
    [
        ("/", 200, "Teapot"),
        ("/product/1", 200, "34.00 €"),
        ("/product/99", 404, "there is no product 99"),
        ("/product/1/photo", 404, "no photo"),
        ("/cart", 200, "Nothing in it yet"),
        ("/api/products/2", 200, '"price_cents":2750'),
        ("/api/products/99", 404, '"error":"there is no product 99"'),
        ("/prices.csv", 200, '1,"Teapot",3400\n'),
        ("/slow?seconds=0", 200, '"slept_s":0.0'),
        ("/slow?seconds=31", 400, "between 0 and 30"),
        ("/slow?seconds=nan", 400, "between 0 and 30"),
        ("/boom", 500, "Internal Server Error"),
        ("/healthz", 200, "ok"),
        ("/static/shop.css", 200, "color-scheme"),
    ],
)
def test_answers(client, target, status, contains):
    with client.get(target) as answer:
        assert answer.status_code == status
        assert contains in answer.text


def test_a_cart_is_filled_and_bought(client):
    for _ in range(2):
        assert client.post("/cart", data={"product": "3"}).status_code == 303
    assert "18.00 €" in client.get("/cart").text
    assert "You bought for 18.00 €" in client.post("/cart/buy").text
    assert "Nothing to buy" in client.post("/cart/buy").text


def test_a_photo_is_uploaded_and_shown(client):
    sent = client.post("/product/1/photo", data={"photo": (io.BytesIO(PNG), "pot.png")})
    assert sent.status_code == 303
    shown = client.get("/product/1/photo")
    assert (shown.data, shown.mimetype) == (PNG, "image/png")
    refused = client.post("/product/1/photo", data={"photo": (io.BytesIO(b"<svg/>"), "pot.png")})
    assert refused.status_code == 415
    shown.close()


def test_orders_come_as_json(client):
    made = client.post("/api/orders", json={"product": 2, "quantity": 3})
    assert made.status_code == 201
    assert made.json["price_cents"] == 3 * 2750
    assert client.post("/api/orders", json={"product": 2, "quantity": 0}).status_code == 422
    assert client.post("/api/orders", data="{", content_type="application/json").status_code == 400


def test_pages_load_nothing_from_other_hosts(client):
    for page in ("/", "/product/1", "/cart"):
        assert not re.findall(r"https?:", client.get(page).text)


def _first_use(data, barrier):
    sys.path.insert(0, str(ROOT / "examples"))
    import shop

    client = shop.create_app(data).test_client()
    barrier.wait(30)
    assert client.post("/api/orders", json={"product": 1, "quantity": 1}).status_code == 201


def test_processes_that_open_it_first_at_once_lose_no_order(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    children = [context.Process(target=_first_use, args=(str(tmp_path), barrier)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0, 0]
    import sqlite3

    connection = sqlite3.connect(tmp_path / "shop.sqlite")
    assert connection.execute("SELECT count(*) FROM purchase").fetchone() == (4,)
    connection.close()
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_the_demo_serves_and_says_what_to_try(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        sys.executable,
        str(ROOT / "examples" / "demo.py"),
        "--set",
        f"listen={address}",
        "--set",
        "admin=null",
    ]
    environ = os.environ | {"SHOP_DATA": str(tmp_path)}
    with subprocess.Popen(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        try:
            said = []
            for line in demo.stdout:
                said.append(line)
                if "Ctrl-C" in line:
                    break
            assert any("prefork reload" in line for line in said), demo.stderr.read()
            with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
                assert b"Teapot" in answer.read()
        finally:
            demo.terminate()
            _, errors = demo.communicate(timeout=60)
    assert demo.returncode == 0, errors
