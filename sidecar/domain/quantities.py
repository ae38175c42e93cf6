"""Exact quantities: decimal text in, scaled integers inside, decimals out.

A quantity is an integer scaled by its feature's precision (decimal places). No float takes part,
and every result stays within ±`QUANTITY_MAX`, the integers that Lua's numbers hold exactly. This
module knows nothing of features, buckets or requests.
"""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation

QUANTITY_MAX = 2**53 - 1
"""The largest magnitude of a scaled quantity or of a sum of them."""

PRECISION_MAX = 9
"""The most decimal places a feature may have."""

FRACTION_PRODUCT_LIMIT = 2**53
"""A credit cost n/d is usable while n·d is below this: then no product in a script passes 2^53."""

_MAGNITUDE_MAX = 40
"""Decimal exponents beyond ± this are answered without building the digits."""


class QuantityError(ValueError):
    """A quantity that cannot be held exactly.

    `fits_precision` is the precision (0–9) at which it could be, None if there is none."""

    def __init__(self, message: str, fits_precision: int | None = None):
        super().__init__(message)
        self.fits_precision = fits_precision


def scale(value: int | Decimal | str, precision: int) -> int:
    """`value` as an integer scaled by 10^`precision`, rounded half away from zero.

    Raises QuantityError, naming the precision that would fit, for a value that is not zero but
    rounds to zero and for one out of range; and for one that is no finite decimal number."""
    _known_precision(precision)
    exact = _decimal(value)
    scaled = _round(exact, precision)
    if scaled == 0 and exact != 0:
        raise _too_small(exact, precision)
    if abs(scaled) > QUANTITY_MAX:
        raise _too_large(exact, precision)
    return scaled


def unscale(scaled: int, precision: int) -> int | Decimal:
    """The number that `scaled` stands for: an int when whole, else a Decimal without trailing
    zeros. Exact for any magnitude."""
    unit = 10**precision
    if scaled % unit == 0:
        return scaled // unit
    digits, places = abs(scaled), precision
    while digits % 10 == 0:
        digits, places = digits // 10, places - 1
    sign = 1 if scaled < 0 else 0
    return Decimal((sign, tuple(map(int, str(digits))), -places))


def fraction(cost: int | Decimal | str, precision_system: int, precision_member: int) -> tuple[int, int]:
    """A credit cost as the reduced fraction (n, d): scaled credits per scaled unit of the member.

    `cost` is credits per unit, 0 or more. Raises QuantityError if it is negative, no number, or
    if n·d would reach 2^53, naming the credit system's precision that would fit, if any."""
    _known_precision(precision_system)
    _known_precision(precision_member)
    exact = _decimal(cost)
    if exact < 0:
        raise QuantityError(f"a credit cost must not be negative, got {exact}")
    if abs(exact.adjusted()) > _MAGNITUDE_MAX:
        raise QuantityError(f"a credit cost of {exact:e} cannot be kept exactly")
    n, d = _reduced(exact, precision_system, precision_member)
    if n * d < FRACTION_PRODUCT_LIMIT:
        return n, d
    fits = _first(
        p for p in range(PRECISION_MAX, -1, -1) if math.prod(_reduced(exact, p, precision_member)) < FRACTION_PRODUCT_LIMIT
    )
    raise QuantityError(
        f"a credit cost of {exact} cannot be kept exactly between precisions {precision_system} (credits) and "
        f"{precision_member} (units): " + _advice(fits, "the credit system"),
        fits,
    )


def to_credits(units: int, n: int, d: int) -> int:
    """What `units` (scaled, 0 or more) cost in scaled credits at n/d each: ⌈units·n/d⌉."""
    whole, rest = divmod(units, d)
    return whole * n - (-rest * n // d)


def to_units(credits: int, n: int, d: int) -> int:
    """The units (scaled) that `credits` (scaled, 0 or more) have paid at n/d each, n > 0:
    ⌊credits·d/n⌋."""
    whole, rest = divmod(credits, n)
    return whole * d + rest * d // n


def credits_back(units: int, n: int, d: int) -> int:
    """What a refund of `units` (scaled, 0 or more) gives back in scaled credits: ⌊units·n/d⌋."""
    whole, rest = divmod(units, d)
    return whole * n + rest * n // d


def _known_precision(precision: int) -> None:
    if not 0 <= precision <= PRECISION_MAX:
        raise QuantityError(f"a precision is 0 to {PRECISION_MAX}, got {precision}")


def _decimal(value: int | Decimal | str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)):
        raise QuantityError(f"expected a number, got {value!r}")
    try:
        exact = value if isinstance(value, Decimal) else Decimal(value)
    except InvalidOperation:
        raise QuantityError(f"expected a number, got {value!r}") from None
    if not exact.is_finite():
        raise QuantityError(f"expected a finite number, got {value!r}")
    return exact


def _round(exact: Decimal, precision: int) -> int:
    """Half away from zero, by integers: the decimal module's context would round to 28 digits."""
    sign, digits, exponent = exact.as_tuple()
    assert isinstance(exponent, int)
    if exact == 0 or exact.adjusted() < -_MAGNITUDE_MAX:
        return 0
    if exact.adjusted() > _MAGNITUDE_MAX:
        return -(10**_MAGNITUDE_MAX) if sign else 10**_MAGNITUDE_MAX  # out of range at any precision
    magnitude = int("".join(map(str, digits)))
    shift = exponent + precision
    if shift >= 0:
        magnitude *= 10**shift
    else:
        unit = 10**-shift
        magnitude, rest = divmod(magnitude, unit)
        magnitude += 2 * rest >= unit
    return -magnitude if sign else magnitude


def _too_small(exact: Decimal, precision: int) -> QuantityError:
    fits = _first(p for p in range(precision + 1, PRECISION_MAX + 1) if 0 < abs(_round(exact, p)) <= QUANTITY_MAX)
    return QuantityError(f"{exact} rounds to zero at precision {precision}: " + _advice(fits, "the feature"), fits)


def _too_large(exact: Decimal, precision: int) -> QuantityError:
    fits = _first(p for p in range(precision - 1, -1, -1) if 0 < abs(_round(exact, p)) <= QUANTITY_MAX)
    return QuantityError(f"{exact} is out of range at precision {precision}: " + _advice(fits, "the feature"), fits)


def _reduced(cost: Decimal, precision_system: int, precision_member: int) -> tuple[int, int]:
    n, d = cost.as_integer_ratio()
    n, d = n * 10**precision_system, d * 10**precision_member
    common = math.gcd(n, d)
    return n // common, d // common


def _advice(fits: int | None, owner: str) -> str:
    if fits is None:
        return f"no precision from 0 to {PRECISION_MAX} would fit"
    return f"precision {fits} of {owner} would fit"


def _first(candidates) -> int | None:
    return next(iter(candidates), None)
