"""Convolutions against the definition written out: windows, groups, labels, pieces."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.attributes import ConvolutionDimensions, Window, WindowDimension
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.ops import convolution
from nxcc.ir.shapes import Shape, array

from harness.one_instruction import instruction_on, result_of

Array = np.ndarray[Any, Any]


def random(*dims: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(dims).astype(np.float32)


def one_dimensional(**window: Any) -> dict[str, Any]:
    return {"window": Window((WindowDimension(**window),)),
            "dim_labels": ConvolutionDimensions(0, 1, (2,), 1, 0, (2,), 0, 1, (2,))}


def line(*values: float) -> Array:
    return np.array(values, np.float32).reshape(1, 1, -1)


CONVOLUTIONS = [
    ("correlation", {"size": 2}, (21, 32, 43)),
    ("reversal", {"size": 2, "reversal": True}, (12, 23, 34)),
    ("stride", {"size": 2, "stride": 2}, (21, 43)),
    ("padding", {"size": 2, "padding_low": 1, "padding_high": 1}, (10, 21, 32, 43, 4)),
    ("crop", {"size": 2, "padding_low": -1}, (32, 43)),
    ("base-dilation", {"size": 2, "base_dilation": 2}, (1, 20, 2, 30, 3, 40)),
    ("window-dilation", {"size": 2, "window_dilation": 2}, (31, 42)),
    ("crop-of-dilated", {"size": 2, "base_dilation": 2, "padding_low": -1, "padding_high": 1}, (20, 2, 30, 3, 40, 4)),
    ("no-place", {"size": 2, "padding_low": -2, "padding_high": -2}, ()),
]


@pytest.mark.parametrize(("window", "expected"), [row[1:] for row in CONVOLUTIONS], ids=[row[0] for row in CONVOLUTIONS])
def test_convolution_windows(window: dict[str, Any], expected: tuple[float, ...]) -> None:
    result = result_of("convolution", line(1, 2, 3, 4), line(1, 10), **one_dimensional(**window))
    assert result.ravel().tolist() == list(expected)


def defined_convolution(x: Array, kernel: Array, stride: int, groups: int, batch_groups: int) -> Array:
    """NCHW and OIHW by the definition: output block k reads feature block k, or batch block k."""
    outputs, channels, height, width = kernel.shape
    batch = x.shape[0] // batch_groups
    rows, columns = (x.shape[2] - height) // stride + 1, (x.shape[3] - width) // stride + 1
    result = np.zeros((batch, outputs, rows, columns))
    for n, o, i, j in itertools.product(range(batch), range(outputs), range(rows), range(columns)):
        group, batch_group = o // (outputs // groups), o // (outputs // batch_groups)
        patch = x[batch_group * batch + n, group * channels:(group + 1) * channels, i * stride:i * stride + height,
                  j * stride:j * stride + width]
        result[n, o, i, j] = (patch * kernel[o]).sum()
    return result


@pytest.mark.parametrize(("groups", "batch_groups", "channels"), [(1, 1, 3), (2, 1, 3), (3, 1, 1), (1, 2, 3)])
def test_convolution_groups(groups: int, batch_groups: int, channels: int) -> None:
    x, kernel = random(4, channels * groups, 6, 7), random(6, channels, 3, 2, seed=1)
    window = Window((WindowDimension(3, stride=2), WindowDimension(2, stride=2)))
    labels = ConvolutionDimensions(0, 1, (2, 3), 1, 0, (2, 3), 0, 1, (2, 3))
    result = result_of("convolution", x, kernel, window=window, dim_labels=labels, feature_group_count=groups,
                       batch_group_count=batch_groups)
    np.testing.assert_allclose(result, defined_convolution(x, kernel, 2, groups, batch_groups), rtol=1e-4, atol=1e-5)


def test_convolution_places_dimensions_as_labelled() -> None:
    x, kernel = random(2, 3, 5, 6), random(4, 3, 2, 2, seed=1)
    window = Window((WindowDimension(2), WindowDimension(2)))
    plain = defined_convolution(x, kernel, 1, 1, 1)
    labels = ConvolutionDimensions(3, 0, (1, 2), 2, 3, (0, 1), 1, 3, (2, 0))
    result = result_of("convolution", x.transpose(1, 2, 3, 0), kernel.transpose(2, 3, 1, 0), window=window, dim_labels=labels)
    np.testing.assert_allclose(result, plain.transpose(3, 0, 2, 1), rtol=1e-4, atol=1e-5)


def test_convolution_without_spatial_dimensions_is_a_matrix_product() -> None:
    x, kernel = random(3, 4), random(4, 5, seed=1)
    labels = ConvolutionDimensions(0, 1, (), 0, 1, (), 0, 1, ())
    np.testing.assert_allclose(result_of("convolution", x, kernel, dim_labels=labels), x @ kernel, rtol=1e-5)


def test_convolution_gathers_windows_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    x, kernel = random(3, 2, 6, 7), random(4, 2, 3, 2, seed=1)
    window = Window((WindowDimension(3), WindowDimension(2)))
    labels = ConvolutionDimensions(0, 1, (2, 3), 1, 0, (2, 3), 0, 1, (2, 3))
    monkeypatch.setattr(convolution, "PIECE_ELEMENTS", 30)
    result = result_of("convolution", x, kernel, window=window, dim_labels=labels)
    np.testing.assert_allclose(result, defined_convolution(x, kernel, 1, 1, 1), rtol=1e-4, atol=1e-5)


def test_integer_convolution_wraps() -> None:
    x, kernel = np.full((1, 1, 3), 100, np.int8), np.full((1, 1, 2), 2, np.int8)
    assert result_of("convolution", x, kernel, **one_dimensional(size=2)).ravel().tolist() == [-112, -112]


LABELS = ConvolutionDimensions(0, 1, (2,), 1, 0, (2,), 0, 1, (2,))
REFUSED = [
    ("convolution", (array(dtypes.F32, 1, 2, 4), array(dtypes.F32, 1, 3, 2)),
     {"window": Window((WindowDimension(2),)), "dim_labels": LABELS}, "the input has 2"),
    ("convolution", (array(dtypes.F32, 1, 2, 4), array(dtypes.F32, 1, 2, 2)),
     {"window": Window((WindowDimension(3),)), "dim_labels": LABELS}, "window size 3"),
]


@pytest.mark.parametrize(("opcode", "shapes", "attributes", "reason"), REFUSED, ids=[f"{r[0]}-{r[3]}" for r in REFUSED])
def test_wrong_operands_are_refused(opcode: str, shapes: tuple[Shape, ...], attributes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        instruction_on(opcode, *shapes, **attributes)
