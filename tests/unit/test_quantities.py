"""Guarantee: a quantity is kept exactly or refused with the precision that would fit."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.domain.quantities import (
    QUANTITY_MAX,
    QuantityError,
    credits_back,
    fraction,
    scale,
    to_credits,
    to_units,
    unscale,
)


@pytest.mark.parametrize(
    ("value", "precision", "scaled"),
    [
        (0, 6, 0),
        ("0.000", 0, 0),
        (Decimal("-0"), 6, 0),
        (3, 0, 3),
        (-5, 2, -500),
        ("23.47", 6, 23_470_000),
        ("0.30000000000000004", 6, 300_000),
        (Decimal("0.1"), 6, 100_000),
        ("1E+3", 6, 1_000_000_000),
        ("0.5", 0, 1),
        ("-0.5", 0, -1),
        ("1.4999999", 0, 1),
        ("2.5", 0, 3),
        ("-2.5", 0, -3),
        ("0.0000005", 6, 1),
        ("0.9999999999999999999999999999999999999", 6, 1_000_000),
        (QUANTITY_MAX, 0, QUANTITY_MAX),
        (-QUANTITY_MAX, 0, -QUANTITY_MAX),
        ("9007199254.740991", 6, QUANTITY_MAX),
    ],
)
def test_values_scale_half_away_from_zero(value, precision, scaled):
    assert scale(value, precision) == scaled


@pytest.mark.parametrize(
    ("value", "precision", "fits"),
    [
        ("0.0000001", 6, 7),
        ("-0.00000049", 6, 7),
        ("0.4", 0, 1),
        ("0.0000000004", 6, None),
        ("1e-400", 6, None),
        ("1e-99999999", 6, None),
    ],
)
def test_a_value_that_rounds_to_zero_names_the_precision_that_fits(value, precision, fits):
    with pytest.raises(QuantityError, match="rounds to zero") as problem:
        scale(value, precision)
    assert problem.value.fits_precision == fits
    assert ("no precision" if fits is None else f"precision {fits} ") in str(problem.value)


@pytest.mark.parametrize(
    ("value", "precision", "fits"),
    [
        (QUANTITY_MAX + 1, 0, None),
        (-QUANTITY_MAX - 1, 0, None),
        ("9007199254.740992", 6, 5),
        (10**12, 6, 3),
        ("1e70", 6, None),
        ("-1e999999", 6, None),
    ],
)
def test_a_value_out_of_range_names_the_precision_that_fits(value, precision, fits):
    with pytest.raises(QuantityError, match="out of range") as problem:
        scale(value, precision)
    assert problem.value.fits_precision == fits


@pytest.mark.parametrize("value", ["", "abc", "nan", "inf", Decimal("NaN"), Decimal("Infinity"), True, 1.5, None, [1]])
def test_what_is_no_finite_decimal_is_refused(value):
    with pytest.raises(QuantityError, match="number"):
        scale(value, 6)


@pytest.mark.parametrize("precision", [-1, 10])
def test_precisions_end_at_nine(precision):
    with pytest.raises(QuantityError, match="0 to 9"):
        scale(1, precision)


@given(st.integers(-QUANTITY_MAX, QUANTITY_MAX), st.integers(0, 9))
def test_unscale_undoes_scale(scaled, precision):
    value = unscale(scaled, precision)
    assert scale(value, precision) == scaled
    assert isinstance(value, int) == (scaled % 10**precision == 0)


def test_unscaled_decimals_have_no_trailing_zeros():
    assert str(unscale(189_950_000, 6)) == "189.95"
    assert str(unscale(-1, 9)) == "-1E-9" and unscale(-1, 9) == Decimal("-0.000000001")
    assert unscale(205_000_000, 6) == 205 and type(unscale(205_000_000, 6)) is int


@pytest.mark.parametrize(
    ("cost", "system", "member", "expected"),
    [
        ("0.01", 6, 6, (1, 100)),
        (Decimal("1.4"), 6, 6, (7, 5)),
        (3, 0, 0, (3, 1)),
        (1, 6, 0, (1_000_000, 1)),
        ("0.2", 0, 6, (1, 5_000_000)),
        (0, 6, 6, (0, 1)),
    ],
)
def test_a_credit_cost_is_a_reduced_fraction_of_scaled_units(cost, system, member, expected):
    assert fraction(cost, system, member) == expected


def test_a_credit_cost_whose_product_reaches_the_limit_is_refused():
    assert fraction(2**53 - 1, 0, 0) == (2**53 - 1, 1)
    with pytest.raises(QuantityError, match="no precision") as problem:
        fraction(2**53, 0, 0)
    assert problem.value.fits_precision is None
    with pytest.raises(QuantityError, match="precision 6 of the credit system would fit") as problem:
        fraction("9000000000", 9, 0)
    assert problem.value.fits_precision == 6


@pytest.mark.parametrize("cost", [-1, "-0.1", "1e-50", "1e50", "nan"])
def test_negative_or_absurd_credit_costs_are_refused(cost):
    with pytest.raises(QuantityError):
        fraction(cost, 6, 6)


@given(st.integers(0, QUANTITY_MAX), st.integers(1, 10**7), st.integers(1, 10**7))
def test_conversions_round_as_fractions_do(units, n, d):
    exact = Fraction(units * n, d)
    assert to_credits(units, n, d) == -(-exact.numerator // exact.denominator)
    assert credits_back(units, n, d) == exact.numerator // exact.denominator
    assert to_units(units, n, d) == units * d // n


@given(st.integers(0, QUANTITY_MAX), st.integers(1, 10**7), st.integers(1, 10**7))
def test_what_credits_have_paid_never_costs_more_than_they_are(credits, n, d):
    paid = to_units(credits, n, d)
    assert to_credits(paid, n, d) <= credits < to_credits(paid + 1, n, d)


def test_a_free_member_costs_nothing():
    assert to_credits(12345, 0, 1) == 0 and credits_back(12345, 0, 1) == 0
