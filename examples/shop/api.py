"""The JSON interface, below ``/api``."""

from __future__ import annotations

from flask import Blueprint, Response, abort, jsonify, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from shop import catalogue

blueprint = Blueprint("api", __name__, url_prefix="/api")


@blueprint.errorhandler(HTTPException)
def error(failure: HTTPException) -> ResponseReturnValue:
    return jsonify(error=failure.description), failure.code or 500


@blueprint.get("/products")
def products() -> Response:
    return jsonify([dict(row) for row in catalogue.products()])


@blueprint.get("/products/<int:number>")
def product(number: int) -> Response:
    return jsonify(dict(catalogue.product(number)))


@blueprint.post("/orders")
def order() -> ResponseReturnValue:
    """Take ``{"product": 2, "quantity": 1}`` and answer with the order."""
    match request.get_json():
        case {"product": int(number), "quantity": int(quantity)} if 1 <= quantity <= catalogue.MAX_QUANTITY:
            made = dict(catalogue.order(number, quantity))
        case _:
            abort(422, f'send {{"product": number, "quantity": 1 to {catalogue.MAX_QUANTITY}}}')
    return jsonify(made), 201, {"Location": url_for("pages.product", number=number)}
