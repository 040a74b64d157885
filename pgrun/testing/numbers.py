"""Made-up integers and numbers that keep the bounds of a schema: `generate` counts, here the count becomes a value."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from pgrun.testing.wording import CannotGenerate

Schema = dict[str, Any]


def made_up_integer(node: Schema, count: int) -> int:
    """The `count`-th integer the schema allows, from 1 or its lower bound on, beginning again at its upper bound.

    Raises:
        CannotGenerate: The bounds leave no integer.
    """
    step = Fraction(str(node.get("multipleOf", 1))).numerator  # 3 for 1.5
    low, high = _integer_bounds(node)
    if low is None:
        low = 1 if high is None or high >= step else high - high % step
    first = -(-low // step) * step
    if high is None:
        return first + (count - 1) * step
    if first > high:
        raise CannotGenerate(f"no integer lies within {node}")
    return first + (count - 1) % ((high - first) // step + 1) * step


def _integer_bounds(node: Schema) -> tuple[int | None, int | None]:
    lows = [math.ceil(node["minimum"])] if "minimum" in node else []
    lows += [math.floor(node["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in node else []
    highs = [math.floor(node["maximum"])] if "maximum" in node else []
    highs += [math.ceil(node["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in node else []
    return max(lows, default=None), min(highs, default=None)


def made_up_number(node: Schema, count: int) -> float:
    """A number the schema allows: 1.5, 2.5 and so on where it has no bounds, else another one between them each time.

    Raises:
        CannotGenerate: The bounds leave no number.
    """
    # Decimal keeps 0.1 + 0.1 + 0.1 a multiple of 0.1.
    low, high = _bound(node, "minimum", max), _bound(node, "maximum", min)
    if "multipleOf" in node:
        return _multiple(node, Decimal(str(node["multipleOf"])), count)
    if low is not None and high is not None:
        if low > high:
            raise CannotGenerate(f"no number lies within {node}")
        return float(low + (high - low) / 2 ** ((count - 1) % 10 + 1))
    if low is not None:
        return float(low + count)
    return float(high - count) if high is not None else count + 0.5


def _bound(node: Schema, keyword: str, tightest: Callable[..., Decimal | None]) -> Decimal | None:
    exclusive = "exclusive" + keyword.capitalize()
    return tightest((Decimal(str(node[key])) for key in (keyword, exclusive) if key in node), default=None)


def _multiple(node: Schema, step: Decimal, count: int) -> float:
    # Counted in steps, the bounds are those of an integer.
    names = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    steps = {name: Decimal(str(node[name])) / step for name in names if name in node}
    return float(made_up_integer(steps, count) * step)
