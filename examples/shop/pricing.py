"""What the shop computes in Python: recommendations and the price of a basket."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log2

Line = tuple[int, int]
"""(product, quantity)"""


def recommend(number: int, baskets: Iterable[tuple[int, int]], sold: Mapping[int, int]) -> list[int]:
    """Products bought together with `number`, the ones that are not bought anyway first."""
    together: Counter[int] = Counter()
    for _, other in baskets:
        if other != number:
            together[other] += 1
    scores = {other: count * count / log2(2 + sold.get(other, 0)) for other, count in together.items()}
    return sorted(scores, key=lambda other: (-scores[other], other))[:6]


def volume_discount(quantity: int) -> float:
    if quantity >= 50:
        return 0.15
    return 0.1 if quantity >= 10 else 0.0


def basket_total(lines: Sequence[Line], prices: Mapping[int, int]) -> dict[str, int]:
    """Sum, discount and tax of a basket, all in cents; KeyError for a product without a price."""
    gross = 0
    discount = 0
    for product, quantity in lines:
        value = prices[product] * quantity
        gross += value
        discount += round(value * volume_discount(quantity))
    net = gross - discount
    return {"gross": gross, "discount": discount, "tax": round(net * 0.19), "total": round(net * 1.19)}
