"""Fixed-point numbers: exact sums, stated rounding, and an error where a sum could wrap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnbrain.federated import FixedPoint

widths = st.sampled_from([8, 16, 32, 64])


@given(bits=widths, data=st.data())
def test_encoding_rounds_to_the_nearest_multiple_modulo_a_power_of_two(bits, data):
    """eq-fixed-point, against Python's integers."""
    fraction = data.draw(st.integers(0, bits - 1))
    code = FixedPoint(bits, fraction)
    x = data.draw(st.floats(-code.limit() * 0.999, code.limit() * 0.999))
    nearest = round(x * 2**fraction)  # halves to even, as stated
    assert int(code.encode([x])[0]) == nearest % 2**bits
    assert float(code.decode(code.encode([x]))[0]) == nearest / 2**fraction
    assert abs(nearest / 2**fraction - x) <= 2.0 ** -(fraction + 1)


def test_every_residue_of_a_byte_is_decoded_and_encoded_back():
    code = FixedPoint(8, 3)
    everything = np.arange(256, dtype=np.uint8)
    assert sorted(code.decode(everything)) == [q / 8 for q in range(-128, 128)]
    # -16 has no opposite, so it is not accepted
    np.testing.assert_array_equal(
        code.encode(code.decode(everything[everything != 128])), np.delete(everything, 128)
    )


def test_halves_go_to_the_even_neighbour():
    assert FixedPoint(8, 0).encode([0.5, 1.5, 2.5, -0.5, -1.5]).tolist() == [0, 2, 2, 0, 254]


@given(bits=st.sampled_from([8, 16, 32]), n=st.integers(1, 9), sign=st.sampled_from([-1, 1]))
def test_the_largest_values_accepted_do_not_wrap_and_the_next_are_refused(bits, n, sign):
    code = FixedPoint(bits, 0)
    limit = (2 ** (bits - 1) - 1) // n
    total = np.sum([code.encode([sign * limit], n) for _ in range(n)], axis=0, dtype=code.dtype)
    assert code.decode(total).tolist() == [sign * limit * n]
    with pytest.raises(ValueError, match=rf"values must be at most .* sum of {n} fits in {bits} bits"):
        code.encode([0, sign * (limit + 1)], n)


def test_in_64_bits_the_limit_is_that_of_the_integers_not_of_float64():
    code = FixedPoint(64, 0)
    below = float(np.nextafter(2.0**63, 0))
    assert code.decode(code.encode([below])).tolist() == [below]
    with pytest.raises(ValueError, match="values must be at most"):
        code.encode([2.0**63])


def test_without_the_check_a_sum_would_wrap():
    code = FixedPoint(8, 0)
    hundred = code.encode([100])
    assert code.decode(hundred + hundred)[0] == 200 - 256
    with pytest.raises(ValueError, match=r"at most 63 in magnitude.* got 100"):
        code.encode([100], n_summands=2)


@given(order=st.permutations(range(6)))
def test_a_sum_has_no_order_unlike_that_of_floats(order):
    values = np.array([1e3, 0.1, -1e3, 0.2, 7.7, -0.3])
    code = FixedPoint()
    total = np.zeros(1, code.dtype)
    for i in order:
        total += code.encode(values[i : i + 1], 6)
    assert total[0] == np.sum(code.encode(values, 6), dtype=code.dtype)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: FixedPoint(12), ValueError, "bits must be 8, 16, 32 or 64, got 12"),
        (lambda: FixedPoint("32"), TypeError, "bits must be an integer, got '32'"),
        (lambda: FixedPoint(16, 16), ValueError, "fraction_bits must be below bits = 16, got 16"),
        (lambda: FixedPoint(16, -1), ValueError, "fraction_bits must be .* >= 0, got -1"),
        (lambda: FixedPoint().encode([np.nan]), ValueError, "values must be finite"),
        (lambda: FixedPoint().encode([1.0], 0), ValueError, "n_summands must be .* >= 1, got 0"),
        (lambda: FixedPoint().decode(np.zeros(2, np.uint64)), TypeError, "residues must have dtype uint32"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
