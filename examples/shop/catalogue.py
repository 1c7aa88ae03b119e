"""What the shop does with its data; pages and the JSON interface both go through here."""

from __future__ import annotations

import sqlite3

from flask import abort

from shop.store import database

MAX_QUANTITY = 100

# The first bytes by which a photo is recognised: what a client claims about its type is not believed.
PHOTO_TYPES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def products() -> list[sqlite3.Row]:
    """Return all products, cheapest first."""
    return database().execute("SELECT * FROM product ORDER BY price_cents").fetchall()


def product(number: int) -> sqlite3.Row:
    """Return one product; 404 if there is none of that number."""
    row: sqlite3.Row | None = database().execute("SELECT * FROM product WHERE id = ?", (number,)).fetchone()
    if row is None:
        abort(404, f"there is no product {number}")
    return row


def photo(number: int) -> sqlite3.Row | None:
    """Return a product's photo (``type``, ``data``), or None."""
    row: sqlite3.Row | None = (
        database().execute("SELECT type, data FROM photo WHERE product = ?", (number,)).fetchone()
    )
    return row


def set_photo(number: int, data: bytes) -> str:
    """Keep ``data`` as the product's photo and return its media type; 415 if it is no picture we know."""
    kind = next((kind for start, kind in PHOTO_TYPES.items() if data.startswith(start)), None)
    if kind is None:
        abort(415, "a photo is a PNG, JPEG or GIF file")
    with database() as transaction:
        transaction.execute(
            "INSERT OR REPLACE INTO photo VALUES (?, ?, ?)", (product(number)["id"], kind, data)
        )
    return kind


def cart(token: str) -> list[sqlite3.Row]:
    """Return the lines of a cart: ``id``, ``name``, ``price_cents``, ``quantity``."""
    query = """SELECT id, name, price_cents, quantity FROM cart JOIN product ON product = id
        WHERE cart = ? ORDER BY name"""
    return database().execute(query, (token,)).fetchall()


def add_to_cart(token: str, number: int) -> None:
    """Put one more of a product into a cart, up to ``MAX_QUANTITY``."""
    with database() as transaction:
        transaction.execute(
            "INSERT INTO cart VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET quantity = min(quantity + 1, ?)",
            (token, product(number)["id"], MAX_QUANTITY),
        )


def order(number: int, quantity: int) -> sqlite3.Row:
    """Buy ``quantity`` of a product and return the order."""
    price = product(number)["price_cents"] * quantity
    with database() as transaction:
        query = "INSERT INTO purchase (product, quantity, price_cents) VALUES (?, ?, ?) RETURNING *"
        row: sqlite3.Row = transaction.execute(query, (number, quantity, price)).fetchone()
    return row


def order_cart(token: str) -> int:
    """Buy what is in a cart, empty it, and return the price in cents; all or nothing."""
    with database() as transaction:
        # Deleting first takes the write lock, so that two clicks on "Buy" cannot both buy.
        lines = transaction.execute(
            "DELETE FROM cart WHERE cart = ? RETURNING product, quantity", (token,)
        ).fetchall()
        bought = [(n, quantity, product(n)["price_cents"] * quantity) for n, quantity in lines]
        transaction.executemany(
            "INSERT INTO purchase (product, quantity, price_cents) VALUES (?, ?, ?)", bought
        )
    return sum(price for _, _, price in bought)
