"""Output dimensions of windows are cut into pieces; those that differ only by their place are one run."""

import itertools

import pytest

from nxcc.backends.lowering.halo import Axis, runs
from nxcc.ir.hlo.attributes import WindowDimension


def axis(size, window, stride, low, high, base, dilation):
    spread = (size - 1) * base + 1 + low + high
    reach = (window - 1) * dilation + 1
    out = (spread - reach) // stride + 1 if spread >= reach else 0
    return Axis(size, out, WindowDimension(size=window, stride=stride, padding_low=low, padding_high=high, base_dilation=base,
                                           window_dilation=dilation))


def form(of, start, size):
    """What code for a piece depends on, but for its place."""
    first, length = of.span(start, size)
    low, valid = of.valid(first, length)
    return size, of.is_interior(start, size), valid and (low * of.window.base_dilation - first, valid)


@pytest.mark.parametrize("case", itertools.product((1, 7), (1, 3), (1, 2, 5), (0, 40), (-2, 33), (1, 17), (1, 4)))
@pytest.mark.parametrize("step", [1, 3, 64])
def test_runs(case, step):
    of = axis(*case)
    found = list(runs(of, step))
    assert sum(size * count for _, size, count in found) == of.out
    assert all(form(of, start + place * size, size) == form(of, start, size)
               for start, size, count in found for place in range(count))


def test_padding_of_any_width_is_a_few_runs():
    assert len(list(runs(axis(4, 4, 1, 500_000_000, 500_000_000, 1, 1), 512))) < 8
    assert len(list(runs(axis(4, 3, 1, 0, 0, 500_000_000, 1), 512))) < 24
