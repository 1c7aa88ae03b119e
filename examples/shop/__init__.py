"""A small shop, the application that ``config/example.yaml`` serves.

It has what a server must cope with: pages, a JSON interface, an upload, a streamed download, a slow page
and a page that raises. Nothing in it knows about prefork: any WSGI server can run ``shop:app``.
"""

from __future__ import annotations

import os
from pathlib import Path

from flask import Flask

from shop import api, pages, store, trouble


def create_app(data: str | None = None) -> Flask:
    """Build the shop, with its database in ``data``, else in ``$SHOP_DATA``, else in ``var/shop``."""
    app = Flask(__name__)
    app.config["DATABASE"] = (
        Path(data or os.environ.get("SHOP_DATA") or "var/shop").absolute() / "shop.sqlite"
    )
    app.config["MAX_CONTENT_LENGTH"] = 4 * 1024 * 1024
    app.json.sort_keys = False  # type: ignore[attr-defined]
    store.attach(app)
    for blueprint in (pages.blueprint, api.blueprint, trouble.blueprint):
        app.register_blueprint(blueprint)
    return app


app = create_app()
