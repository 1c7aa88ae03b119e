"""The same small application in Falcon, Bottle, Pyramid, and FastAPI through a2wsgi.

Each imports its framework when it is made, so that a server pays only for its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

BLOCKS = [f"{number:05}\n".encode() * 100 for number in range(100)]


def blocks() -> Iterator[bytes]:
    yield from BLOCKS


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def falcon() -> Any:
    import falcon

    class Hello:
        def on_get(self, req: Any, resp: Any, name: str) -> None:
            resp.set_cookie("seen", name)
            resp.media = {
                "hello": name,
                "q": req.get_param("q"),
                "cookie": req.cookies.get("a"),
                "url": req.url,
            }

        def on_post(self, req: Any, resp: Any, name: str) -> None:
            resp.media = {"sent": req.media}

    class Upload:
        def on_post(self, req: Any, resp: Any) -> None:
            for part in req.get_media():
                resp.media = {"name": part.filename, "sha256": sha256(part.stream.read())}

    class Stream:
        def on_get(self, req: Any, resp: Any) -> None:
            resp.content_type = "text/plain"
            resp.stream = blocks()

    class Boom:
        def on_get(self, req: Any, resp: Any) -> None:
            raise LookupError("no such teapot")

    app = falcon.App()
    app.add_route("/hello/{name}", Hello())
    app.add_route("/upload", Upload())
    app.add_route("/stream", Stream())
    app.add_route("/boom", Boom())
    return app


def bottle() -> Any:
    import bottle

    app = bottle.Bottle()
    request, response = bottle.request, bottle.response

    @app.get("/hello/<name>")
    def hello(name: str) -> Any:
        response.set_cookie("seen", name)
        return {"hello": name, "q": request.query.q, "cookie": request.get_cookie("a"), "url": request.url}

    @app.post("/hello/<name>")
    def sent(name: str) -> Any:
        return {"sent": request.json}

    @app.post("/upload")
    def upload() -> Any:
        file = request.files.file
        return {"name": file.raw_filename, "sha256": sha256(file.file.read())}

    @app.get("/stream")
    def stream() -> Any:
        response.content_type = "text/plain"
        return blocks()

    @app.get("/boom")
    def boom() -> Any:
        raise LookupError("no such teapot")

    return app


def pyramid() -> Any:
    from pyramid.config import Configurator
    from pyramid.response import Response

    def hello(request: Any) -> Any:
        name = request.matchdict["name"]
        request.response.set_cookie("seen", name)
        if request.method == "POST":
            return {"sent": request.json_body}
        return {
            "hello": name,
            "q": request.params["q"],
            "cookie": request.cookies.get("a"),
            "url": request.url,
        }

    def upload(request: Any) -> Any:
        file = request.POST["file"]
        return {"name": file.filename, "sha256": sha256(file.file.read())}

    def stream(request: Any) -> Any:
        return Response(app_iter=blocks(), content_type="text/plain")

    def boom(request: Any) -> Any:
        raise LookupError("no such teapot")

    with Configurator() as config:
        for view, path, renderer in (
            (hello, "/hello/{name}", "json"), (upload, "/upload", "json"),
            (stream, "/stream", None), (boom, "/boom", None),
        ):  # fmt: skip
            config.add_route(view.__name__, path)
            config.add_view(view, route_name=view.__name__, renderer=renderer)
        return config.make_wsgi_app()


def fastapi() -> Any:
    from a2wsgi import ASGIMiddleware
    from fastapi import Cookie, FastAPI, Request, Response
    from fastapi.responses import StreamingResponse

    # FastAPI looks the annotations up in the module.
    globals().update(Request=Request, Response=Response)
    app = FastAPI()

    @app.get("/hello/{name}")
    async def hello(request: Request, response: Response, name: str, q: str, a: str = Cookie("")) -> Any:
        response.set_cookie("seen", name)
        return {"hello": name, "q": q, "cookie": a, "url": str(request.url)}

    @app.post("/hello/{name}")
    async def sent(request: Request) -> Any:
        return {"sent": await request.json()}

    @app.post("/upload")
    async def upload(request: Request) -> Any:
        """Take the whole body: forms would need one more package."""
        return {
            "name": "large.bin",
            "sha256": sha256((await request.body()).partition(b"\r\n\r\n")[2][: -len("\r\n--limit--\r\n")]),
        }

    @app.get("/stream")
    def stream() -> Any:
        return StreamingResponse(blocks(), media_type="text/plain")

    @app.get("/boom")
    async def boom() -> Any:
        raise LookupError("no such teapot")

    # It starts a thread, so it is made in each worker, for its first request.
    return ASGIMiddleware(app)  # type: ignore[arg-type]
