"""The shop: product pages, and a checkout that asks the location service for the delivery zone."""

import os
from math import log2

import requests
from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

LOCATION_TIMEOUT = 0.25  # seconds
PRODUCTS = 2000
DELIVERY_CENTS = {1: 290, 2: 490, 3: 690}
UNKNOWN_ZONE_CENTS = 990


def similar(number: int) -> list[int]:
    """Six products that are like this one."""
    scores = {other: log2(2 + (number * other) % 97) for other in range(PRODUCTS) if other != number}
    return sorted(scores, key=lambda other: (-scores[other], other))[:6]


def product(number: int) -> ResponseReturnValue:
    return jsonify(product=number, cents=100 + number * 7 % 5000, similar=similar(number))


def delivery_cents(address: str) -> int:
    """The price of delivery; the highest where the location service does not answer in time."""
    url = os.environ["LOCATION_URL"]
    try:
        response = requests.post(f"{url}/locate", json={"address": address}, timeout=LOCATION_TIMEOUT)
        response.raise_for_status()
    except requests.RequestException:
        return UNKNOWN_ZONE_CENTS
    return DELIVERY_CENTS[response.json()["zone"]]


def checkout() -> ResponseReturnValue:
    order = request.get_json()
    goods = sum(100 + number * 7 % 5000 for number in order["products"])
    delivery = delivery_cents(order["address"])
    return jsonify(goods=goods, delivery=delivery, total=goods + delivery), 201


def create_app() -> Flask:
    app = Flask("shop")
    app.add_url_rule("/products/<int:number>", view_func=product)
    app.add_url_rule("/checkout", view_func=checkout, methods=["POST"])
    return app
