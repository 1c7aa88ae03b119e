"""The pages for people."""

from __future__ import annotations

import io
import os
import secrets

from flask import Blueprint, Response, abort, redirect, render_template, request, send_file, url_for
from werkzeug.wrappers import Response as BaseResponse

from shop import catalogue

blueprint = Blueprint("pages", __name__)


@blueprint.app_template_filter()
def money(cents: int) -> str:
    """Show an amount: ``1250`` is ``12.50 €``."""
    return f"{cents // 100}.{cents % 100:02} €"


@blueprint.app_context_processor
def every_page() -> dict[str, object]:
    """Give each page the process that made it: watch it change when you reload."""
    return {"worker_pid": os.getpid(), "here": request.path}


@blueprint.get("/")
def index() -> str:
    return render_template("index.html", products=catalogue.products())


@blueprint.get("/product/<int:number>")
def product(number: int) -> str:
    has_photo = catalogue.photo(number) is not None
    return render_template("product.html", product=catalogue.product(number), has_photo=has_photo)


@blueprint.get("/product/<int:number>/photo")
def photo(number: int) -> Response:
    found = catalogue.photo(number)
    if found is None:
        abort(404, "this product has no photo yet")
    return send_file(io.BytesIO(found["data"]), mimetype=found["type"], max_age=0)


@blueprint.post("/product/<int:number>/photo")
def upload(number: int) -> BaseResponse:
    sent = request.files.get("photo")
    if sent is None:
        abort(400, "send the picture as a form file called 'photo'")
    catalogue.set_photo(number, sent.read())
    return redirect(url_for("pages.product", number=number), 303)


@blueprint.get("/cart")
def cart() -> str:
    lines = catalogue.cart(request.cookies.get("cart", ""))
    return render_template(
        "cart.html", lines=lines, total=sum(line["price_cents"] * line["quantity"] for line in lines)
    )


@blueprint.post("/cart")
def add() -> BaseResponse:
    token = request.cookies.get("cart") or secrets.token_urlsafe(16)
    catalogue.add_to_cart(token, request.form.get("product", 0, int))
    response = redirect(url_for("pages.cart"), 303)
    response.set_cookie("cart", token, httponly=True, samesite="Lax")
    return response


@blueprint.post("/cart/buy")
def buy() -> str:
    return render_template("bought.html", total=catalogue.order_cart(request.cookies.get("cart", "")))


@blueprint.get("/prices.csv")
def prices() -> Response:
    """Stream the price list: a response without a known length."""
    lines = [f'{row["id"]},"{row["name"]}",{row["price_cents"]}\n' for row in catalogue.products()]
    return Response((line for line in ["number,name,cents\n", *lines]), mimetype="text/csv")
