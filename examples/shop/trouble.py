"""Pages that make a server's life hard, and one that asks whether all is well."""

from __future__ import annotations

import os
import time

from flask import Blueprint, Response, abort, jsonify, request

from shop.store import database

blueprint = Blueprint("trouble", __name__)

LONGEST_S = 30.0


class OutOfTeapots(RuntimeError):
    """What ``/boom`` raises."""


@blueprint.get("/slow")
def slow() -> Response:
    """Wait for ``seconds`` (default 2, at most 30) as a page that asks a slow database does."""
    try:
        seconds = float(request.args.get("seconds", 2))
    except ValueError:
        abort(400, "seconds is a number")
    if not 0 <= seconds <= LONGEST_S:
        abort(400, f"seconds is between 0 and {LONGEST_S:g}")
    time.sleep(seconds)
    return jsonify(slept_s=seconds, worker_pid=os.getpid())


@blueprint.get("/boom")
def boom() -> Response:
    """Raise, as a page with a mistake in it does."""
    raise OutOfTeapots("the last one was sold this morning")


@blueprint.get("/healthz")
def health() -> Response:
    """Say that a worker runs and reaches the database."""
    database().execute("SELECT 1 FROM product").fetchone()
    return Response("ok\n", mimetype="text/plain")
