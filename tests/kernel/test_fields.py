"""Numbers of a certificate: each has one spelling, and both readers take it for the same number."""

import math
from fractions import Fraction

import numpy as np
import pytest

from mechverify.kernel.core.errors import Rejected
from mechverify.kernel.core.fields import Reader

ODD = ["", "1", "0.5", "inf", "-inf", "nan", "NaN", "0x1p-3", "0X1.0p+0", "0x1.0000000000000p+00", " 0x1.0000000000000p+0",
       "0x1.0000000000000p+0\n", "+0x1.0000000000000p+0", "0x1.0p+0", "0x1.0000000000000p+1024", "0x1.0000000000000P+0",
       "0x2.0000000000000p+0", "0x0.0000000000000p+0", "1/0", "1/-2", "1 / 2", "--1/2", "1e3", "infinity"]  # fmt: skip


def test_a_float64_is_read_as_the_number_that_it_is():
    rng = np.random.default_rng(0)
    values = [*(rng.normal(size=500) * 2.0 ** rng.integers(-1070, 1000, 500)).tolist(), 5e-324, 1.7976931348623157e308]
    for value in values:
        reader = Reader(value.hex(), "test")
        assert reader.float64() == value and reader.number() == Fraction(value)


def test_zero_has_no_sign():
    """1 / -0.0 would be another infinity."""
    assert math.copysign(1, Reader("-0x0.0p+0", "test").float64()) == 1 and Reader("-0x0.0p+0", "test").number() == 0


def test_a_quotient_is_a_float64_only_if_it_is_one_exactly():
    assert Reader("-3/4", "test").float64() == -0.75 and Reader("-2/6", "test").number() == Fraction(-1, 3)
    for text in ("1/3", f"{2**53 + 1}/1", f"{2**1024}/1"):
        with pytest.raises(Rejected, match="that is a float64"):
            Reader(text, "test").float64()


@pytest.mark.parametrize("value", [*ODD, None, 1, 0.5, True, ["0x1.0000000000000p+0"]], ids=repr)
def test_what_is_spelt_otherwise_is_refused(value):
    for read in (Reader.number, Reader.float64):
        with pytest.raises(Rejected):
            read(Reader(value, "test"))
