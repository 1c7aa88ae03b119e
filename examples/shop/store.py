"""The shop's data in SQLite: a connection for each request, so that workers share nothing but the file."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from pathlib import Path

from flask import Flask, current_app, g

SCHEMA = """
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL,
    price_cents INTEGER NOT NULL, about TEXT NOT NULL);
CREATE TABLE photo (product INTEGER PRIMARY KEY REFERENCES product, type TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE cart (cart TEXT NOT NULL, product INTEGER NOT NULL REFERENCES product, quantity INTEGER NOT NULL,
    PRIMARY KEY (cart, product)) WITHOUT ROWID;
CREATE TABLE purchase (id INTEGER PRIMARY KEY, product INTEGER NOT NULL REFERENCES product,
    quantity INTEGER NOT NULL, price_cents INTEGER NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
"""

PRODUCTS = [
    ("Teapot", 3400, "Short and stout. Refuses to brew coffee, and says so with the right status."),
    ("Garden fork", 2750, "Four tines, ash handle. Copies soil on write."),
    ("Egg timer", 900, "Rings once, at the deadline, and never before."),
    ("Watering can", 1800, "Holds ten litres; drains gracefully within 25 seconds."),
    ("Bicycle bell", 1250, "For the door, when somebody sleeps behind it."),
    ("Pair of wellingtons", 4200, "Inherited in good order from the previous generation."),
]


def attach(app: Flask) -> None:
    """Make ``app`` close the request's connection when the request ends."""
    app.teardown_appcontext(_close)


def database() -> sqlite3.Connection:
    """Return this request's connection; the database is made on first use."""
    if "database" not in g:
        path: Path = current_app.config["DATABASE"]
        if not path.exists():
            _create(path)
        g.database = sqlite3.connect(path, timeout=10)
        g.database.row_factory = sqlite3.Row
        g.database.execute("PRAGMA foreign_keys = ON")
    connection: sqlite3.Connection = g.database
    return connection


def _close(_error: BaseException | None) -> None:
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def _create(path: Path) -> None:
    """Make the database beside its place, then link it there: whichever worker is first wins, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as workshop:
        draft = Path(workshop) / path.name
        connection = sqlite3.connect(draft)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        connection.executemany("INSERT INTO product (name, price_cents, about) VALUES (?, ?, ?)", PRODUCTS)
        connection.commit()
        connection.close()
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
