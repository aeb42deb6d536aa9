"""The shop's web application."""

import sqlite3
from pathlib import Path

from flask import Flask, abort, current_app, g, jsonify, render_template, request
from flask.typing import ResponseReturnValue

from . import catalog, pricing


def database() -> sqlite3.Connection:
    """This request's connection."""
    if "database" not in g:
        g.database = catalog.connect(current_app.config["DATABASE"])
    connection: sqlite3.Connection = g.database
    return connection


def close_database(error: BaseException | None) -> None:
    connection = g.pop("database", None)
    if connection is not None:
        connection.close()


def index() -> ResponseReturnValue:
    return render_template("index.html", products=catalog.featured(database()))


def product_page(number: int) -> ResponseReturnValue:
    connection = database()
    product = catalog.product(connection, number)
    if product is None:
        abort(404)
    baskets = catalog.baskets_with(connection, number)
    sold = catalog.sold(connection, (other for _, other in baskets))
    also = [catalog.product(connection, other) for other in pricing.recommend(number, baskets, sold)]
    return render_template(
        "product.html", product=product, reviews=catalog.reviews(connection, number), also=also
    )


def search() -> ResponseReturnValue:
    words = request.args.get("q", "").split()[:5]
    found = catalog.search(database(), words)
    return jsonify(query=words, count=len(found), products=found)


def checkout() -> ResponseReturnValue:
    body = request.get_json()
    connection = database()
    lines = [(int(line["product"]), int(line["quantity"])) for line in body["lines"]]
    products = {number: catalog.product(connection, number) for number, _ in lines}
    prices = {number: product["cents"] for number, product in products.items() if product is not None}
    missing = sorted(set(products) - set(prices))
    if missing:
        return jsonify(error="no such product", products=missing), 422
    total = pricing.basket_total(lines, prices)
    with connection:
        purchase = catalog.insert_purchase(connection, int(body["customer"]), total["total"], lines)
    return jsonify(purchase=purchase, **total), 201


def create_app(database_path: Path) -> Flask:
    """The application on the database at `database_path`, which is made if it is not there."""
    if not database_path.exists():
        catalog.build(database_path)
    app = Flask(__name__)
    app.config["DATABASE"] = database_path
    app.teardown_appcontext(close_database)
    app.add_url_rule("/", view_func=index)
    app.add_url_rule("/product/<int:number>", view_func=product_page)
    app.add_url_rule("/api/search", view_func=search)
    app.add_url_rule("/api/checkout", view_func=checkout, methods=["POST"])
    return app
