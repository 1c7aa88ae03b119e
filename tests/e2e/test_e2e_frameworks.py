"""Real applications through the real command: the example shop on Flask, and a small Django project."""

from __future__ import annotations

import hashlib
import json
import re
import signal
from pathlib import Path
from urllib.parse import urlencode

from harness import Server
from wire_client import APPS, Answer, Client, Load

ROOT = Path(__file__).parent.parent.parent
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400


def form_file(field: str, name: str, data: bytes) -> tuple[str, bytes]:
    """Return the Content-Type field and the body of an upload."""
    head = f'--limit\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode()
    return "Content-Type: multipart/form-data; boundary=limit", head + data + b"\r\n--limit--\r\n"


def test_the_example_shop(server: Server) -> None:
    config = ROOT / "config/example.yaml"
    server.start(
        "-c", str(config), "--set", f"pythonpath=[{ROOT}/examples]", "--set", "listen=127.0.0.1:0",
        "--set", "admin=null",
        env={"SHOP_DATA": str(server.folder / "data")},
    )  # fmt: skip
    server.wait_for_log("serving on ")
    workers = server.wait_for_workers(2)
    with Client(("127.0.0.1", server.port)) as client:
        pages = [
            ("/", 200, "Teapot"),
            ("/product/1", 200, "34.00 €"),
            ("/product/99", 404, "there is no product 99"),
            ("/cart", 200, "Nothing in it yet"),
            ("/api/products", 200, '"name":"Teapot"'),
            ("/api/products/99", 404, "there is no product 99"),
            ("/prices.csv", 200, '1,"Teapot",3400\n'),
            ("/slow?seconds=0.1", 200, '"slept_s":0.1'),
            ("/boom", 500, "Internal Server Error"),
            ("/healthz", 200, "ok"),
            ("/static/shop.css", 200, "color-scheme"),
        ]
        for target, status, contains in pages:
            answer = client.get(target)
            assert (answer.status, contains in answer.body.decode()) == (status, True), target
        assert client.get("/prices.csv").headers["transfer-encoding"] == "chunked"
        assert client.get("/", method="HEAD").body == b""

        kind, body = form_file("photo", "pot.png", PNG)
        assert client.get("/product/1/photo", kind, method="POST", body=body).status == 303
        assert client.get("/product/1/photo").body == PNG

        answer = post(client, "/cart", "application/x-www-form-urlencoded", b"product=3")
        cookie = answer.headers["set-cookie"].split(";")[0]
        assert "9.00 €" in client.get("/cart", f"Cookie: {cookie}").body.decode()
        order = json.dumps({"product": 2, "quantity": 3}).encode()
        made = post(client, "/api/orders", "application/json", order)
        assert (made.status, json.loads(made.body)["price_cents"]) == (201, 8250)
        assert post(client, "/api/orders", "application/json", b"{").status == 400
    server.wait_for_log("OutOfTeapots: the last one was sold this morning")
    check_load(server, "/api/products", workers)


def test_django(server: Server) -> None:
    server.serve(
        f"app: django_site:application\npythonpath: [{APPS}]\nworkers: 2\nlisten: 127.0.0.1:0", app=None
    )
    workers = server.wait_for_workers(2)
    with Client(("127.0.0.1", server.port)) as client:
        page = json.loads(client.get("/page/7?a=1&a=2").body)
        assert (page["path"], page["query"]) == ("/page/7", {"a": ["1", "2"]})
        assert client.get("/nowhere").status == 404
        stream = client.get("/stream")
        assert stream.headers["transfer-encoding"] == "chunked"
        assert stream.body == b"".join(f"{number:05}\n".encode() * 100 for number in range(100))
        kind, body = form_file("file", "large.bin", PNG * 40)
        sent = json.loads(client.get("/upload", kind, method="POST", body=body).body)
        assert sent == {"name": "large.bin", "sha256": hashlib.sha256(PNG * 40).hexdigest()}
        static = client.get("/static/site.py")
        source = (APPS / "django_site.py").read_bytes()
        assert (static.body, static.headers["content-length"]) == (source, str(len(source)))
        assert static.headers["content-type"].startswith("text/x-python")
        check_admin(client)
        assert client.get("/boom").status == 500
        assert client.get("/page/8").status == 200
    server.wait_for_log("LookupError: no such teapot")
    check_load(server, "/page/1", workers)


def check_admin(client: Client) -> None:
    """Log in as a browser does, and add a group."""
    form = client.get("/admin/login/?next=/admin/")
    cookies = {"csrftoken": form.headers["set-cookie"].partition(";")[0].partition("=")[2]}

    def submit(target: str, page: Answer, **values: str) -> Answer:
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body.decode())
        assert found, page
        data = urlencode({"csrfmiddlewaretoken": found[1], **values}).encode()
        kind = "Content-Type: application/x-www-form-urlencoded"
        return client.get(target, kind, cookie(), method="POST", body=data)

    def cookie() -> str:
        return "Cookie: " + "; ".join(f"{name}={value}" for name, value in cookies.items())

    client.ask("/admin/")
    assert client.answer().headers["location"] == "/admin/login/?next=/admin/"
    assert submit("/admin/login/", form, username="anna", password="wrong").status == 200
    entered = submit("/admin/login/", form, username="anna", password="secret", next="/admin/")
    assert (entered.status, entered.headers["location"]) == (302, "/admin/")
    for line in entered.cookies:
        name, _, value = line.partition(";")[0].partition("=")
        cookies[name] = value
    assert "Site administration" in client.get("/admin/", cookie()).body.decode()
    page = client.get("/admin/auth/group/add/", cookie())
    assert submit("/admin/auth/group/add/", page, name="potters").status == 302
    assert "potters" in client.get("/admin/auth/group/", cookie()).body.decode()


def post(client: Client, target: str, kind: str, body: bytes) -> Answer:
    return client.get(target, f"Content-Type: {kind}", method="POST", body=body)


def check_load(server: Server, target: str, workers: list[int]) -> None:
    """Ask from kept connections and new ones; nothing fails, and the workers are the same ones."""
    address = ("127.0.0.1", server.port)
    kept = Load(address, 6, target, keep_alive=True)
    new = Load(address, 2, target, keep_alive=False)
    with kept, new:
        kept.wait_for(200)
        new.wait_for(50)
    assert (kept.failures, new.failures, kept.refused, new.refused) == ([], [], 0, 0)
    assert server.workers() == workers
    server.send_signal(signal.SIGTERM)
    assert server.wait() == 0
    assert not re.search("internal-error|access-log-failed", server.log)
