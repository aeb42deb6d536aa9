"""The location service: which zone an address is delivered from."""

from flask import Flask, jsonify, request
from flask.typing import ResponseReturnValue

STREETS = {
    ("market", "street"): 1,
    ("old", "mill", "lane"): 2,
    ("station", "road"): 2,
    ("saint", "mary's", "close"): 3,
    ("harbour", "view"): 3,
}


def parse_address(text: str) -> tuple[str, ...] | None:
    """The words of the street in it, the longest name first."""
    # The fault to be found: whatever stands between two words is looked up, though no street has more than
    # three words. That is cubic in the number of words, and nobody notices, since addresses have eight.
    words = tuple(text.lower().replace(",", " ").split())
    for begin in range(len(words)):
        for end in range(len(words), begin, -1):
            if words[begin:end] in STREETS:
                return words[begin:end]
    return None


def locate() -> ResponseReturnValue:
    street = parse_address(request.get_json()["address"])
    if street is None:
        return jsonify(error="no such street"), 404
    return jsonify(zone=STREETS[street])


def create_app() -> Flask:
    app = Flask("location")
    app.add_url_rule("/locate", view_func=locate, methods=["POST"])
    return app
