"""The shop's data: products, reviews and orders in SQLite."""

import random
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SCHEMA = """
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT NOT NULL, category TEXT NOT NULL,
                      cents INTEGER NOT NULL, stock INTEGER NOT NULL);
CREATE TABLE review (id INTEGER PRIMARY KEY, product INTEGER NOT NULL REFERENCES product(id),
                     stars INTEGER NOT NULL, text TEXT NOT NULL);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL, cents INTEGER NOT NULL);
CREATE TABLE purchase_line (purchase INTEGER NOT NULL REFERENCES purchase(id),
                            product INTEGER NOT NULL REFERENCES product(id), quantity INTEGER NOT NULL);
CREATE INDEX review_product ON review(product);
CREATE INDEX line_product ON purchase_line(product);
CREATE INDEX line_purchase ON purchase_line(purchase);
"""
CATEGORIES = ("books", "music", "tools", "garden", "toys")
ADJECTIVES = ("plain", "sturdy", "small", "bright", "quiet", "foldable", "woollen", "spare")
NOUNS = ("lamp", "kettle", "notebook", "drum", "spade", "puzzle", "ladder", "radio", "blanket")
OPINIONS = ("Does what it says.", "Broke after a week.", "My aunt loves it.", "Fair for the price.")

Row = dict[str, Any]


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose rows are dictionaries."""
    connection = sqlite3.connect(path, timeout=10)
    # With the write-ahead log this loses no consistency, only the last purchases after a power cut.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.row_factory = lambda cursor, values: {
        column[0]: value for column, value in zip(cursor.description, values, strict=True)
    }
    return connection


def build(path: Path, *, products: int = 400, purchases: int = 1500, seed: int = 1) -> None:
    """Create the database with made-up content that depends on `seed` only."""
    rng = random.Random(seed)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        prices = [rng.randrange(199, 19999) for _ in range(products)]
        connection.executemany(
            "INSERT INTO product (id, name, category, cents, stock) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    number,
                    f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)} no. {number}",
                    rng.choice(CATEGORIES),
                    prices[number - 1],
                    rng.randrange(5, 5000),
                )
                for number in range(1, products + 1)
            ],
        )
        connection.executemany(
            "INSERT INTO review (product, stars, text) VALUES (?, ?, ?)",
            [
                (rng.randrange(1, products + 1), rng.randrange(1, 6), rng.choice(OPINIONS))
                for _ in range(products * 6)
            ],
        )
        for _ in range(purchases):
            lines = [(rng.randrange(1, products + 1), rng.randrange(1, 4)) for _ in range(4)]
            cents = sum(prices[product - 1] * quantity for product, quantity in lines)
            insert_purchase(connection, rng.randrange(1, 300), cents, lines)
    connection.close()


def insert_purchase(
    connection: sqlite3.Connection, customer: int, cents: int, lines: Iterable[tuple[int, int]]
) -> int:
    cursor = connection.execute("INSERT INTO purchase (customer, cents) VALUES (?, ?)", (customer, cents))
    connection.executemany(
        "INSERT INTO purchase_line (purchase, product, quantity) VALUES (?, ?, ?)",
        [(cursor.lastrowid, product, quantity) for product, quantity in lines],
    )
    return cursor.lastrowid or 0


def featured(connection: sqlite3.Connection, limit: int = 24) -> list[Row]:
    """The best rated products."""
    return connection.execute(
        "SELECT product.*, avg(stars) AS stars, count(*) AS reviews FROM product"
        " JOIN review ON review.product = product.id GROUP BY product.id"
        " ORDER BY stars DESC, reviews DESC LIMIT ?",
        (limit,),
    ).fetchall()


def product(connection: sqlite3.Connection, number: int) -> Row | None:
    row: Row | None = connection.execute("SELECT * FROM product WHERE id = ?", (number,)).fetchone()
    return row


def reviews(connection: sqlite3.Connection, number: int) -> list[Row]:
    return connection.execute("SELECT stars, text FROM review WHERE product = ?", (number,)).fetchall()


def search(connection: sqlite3.Connection, words: Sequence[str], limit: int = 50) -> list[Row]:
    condition = " AND ".join("name LIKE ?" for _ in words) or "1"
    return connection.execute(
        f"SELECT * FROM product WHERE {condition} ORDER BY cents LIMIT ?",
        (*(f"%{word}%" for word in words), limit),
    ).fetchall()


def baskets_with(connection: sqlite3.Connection, number: int) -> list[tuple[int, int]]:
    """(purchase, product) of every line of every purchase that holds the product."""
    rows = connection.execute(
        "SELECT other.purchase AS purchase, other.product AS product FROM purchase_line AS mine"
        " JOIN purchase_line AS other ON other.purchase = mine.purchase WHERE mine.product = ?",
        (number,),
    ).fetchall()
    return [(row["purchase"], row["product"]) for row in rows]


def sold(connection: sqlite3.Connection, numbers: Iterable[int]) -> dict[int, int]:
    """How many purchases each product is part of."""
    chosen = sorted(set(numbers))
    marks = ", ".join("?" for _ in chosen)
    rows = connection.execute(
        f"SELECT product, count(*) AS purchases FROM purchase_line"
        f" WHERE product IN ({marks}) GROUP BY product",
        chosen,
    ).fetchall()
    return {row["product"]: row["purchases"] for row in rows}
