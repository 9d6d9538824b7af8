"""What a convolution computes, whatever its lowering: operands with named dimensions, and strips whose input fits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from nxcc.backends.lowering.contraction import tensor_dtype
from nxcc.backends.lowering.halo import Axis, Strip, strips
from nxcc.backends.lowering.products.limbs import as_bytes
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.dtypes import BF16, PRED, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.module import Instruction

STRIP_BYTES = 65536
"""Bytes a partition that the input strips of all rotating tiles may take."""

SPATIAL = 3
"""Spatial dimensions are filled up to depth, rows, columns with ones of size 1."""


def work_dtype(data: DType, weights: DType, result: DType) -> DType:
    """The dtype of tiles: what the tensor engine multiplies, or the data's for integers."""
    if data.is_float or weights.is_float or result.is_float:
        return tensor_dtype(data, weights)
    return data


def strip_element_bytes(dtype: DType) -> int:
    """Bytes of an element of a strip: integers lie there as bytes in bf16 as well."""
    return dtype.byte_size if dtype.is_float else dtype.byte_size * (1 + BF16.byte_size)


@dataclass(frozen=True, slots=True)
class Problem:
    """One group: data [n, c, d, h, w], weights [c, o, d, h, w], result [n, o, d, h, w].

    dtype: of strips in SBUF. packed: window rows that lie beside each other on partitions, 1 if only channels do.
    """

    data: View
    weights: View
    result: View
    axes: tuple[Axis, Axis, Axis]
    dtype: DType
    packed: int = 1

    @property
    def channels(self) -> int:
        """Rows of the tensor engine in all."""
        return self.data.sizes[1] * self.packed

    @property
    def taps(self) -> tuple[int, int, int]:
        """Window cells that take a pass each."""
        depth, rows, columns = (axis.window.size for axis in self.axes)
        return depth, rows // self.packed, columns

    @property
    def is_integer(self) -> bool:
        return not self.dtype.is_float


def normalize(instruction: Instruction, data: View, weights: View, result: View) -> Problem:
    dims = instruction.attribute("dim_labels")
    windows = list(instruction.attribute("window").dims)
    fill = SPATIAL - len(windows)
    axes = [Axis(1, 1, WindowDimension(1))] * fill
    axes += [Axis(data.sizes[i], result.sizes[o], w)
             for i, o, w in zip(dims.input_spatial, dims.output_spatial, windows, strict=True)]
    dtype = work_dtype(data.dtype, weights.dtype, result.dtype)
    data = as_bytes(data).permute((dims.input_batch, dims.input_feature, *dims.input_spatial))
    weights = as_bytes(weights).permute((dims.kernel_input_feature, dims.kernel_output_feature, *dims.kernel_spatial))
    result = result.permute((dims.output_batch, dims.output_feature, *dims.output_spatial))
    for _ in range(fill):
        data, weights, result = data.insert(2), weights.insert(2), result.insert(2)
    for d, axis in enumerate(axes):
        if axis.window.reversal:
            weights = weights.cut(2 + d, axis.window.size - 1, axis.window.size, -1)
    return Problem(data, weights, result, (axes[0], axes[1], axes[2]), data.dtype if dtype is PRED else dtype)


def groups_of(kernel: Kernel, problem: Problem, count: int, data_dim: int) -> Iterator[Problem]:
    """A loop over groups: each has its part of the data's batch or channels, of the output channels and of the weights."""
    data, weights, result = problem.data, problem.weights, problem.result
    part, outputs = data.sizes[data_dim] // count, weights.sizes[1] // count
    for group, _ in kernel.tiles(count, 1, outer=True):
        yield replace(problem, data=data.cut(data_dim, group * part, part), weights=weights.cut(1, group * outputs, outputs),
                      result=result.cut(1, group * outputs, outputs))


def strip_budget(kernel: Kernel) -> int:
    """Bytes a partition of one of the strips that rotate."""
    return STRIP_BYTES // (kernel.copies.inner * kernel.copies.outer)


def _fitting(axis: Axis, bytes_each: int, budget: int) -> int:
    """Outputs of an axis whose input, of so many bytes a coordinate, fits."""
    window = axis.window
    most = (budget // bytes_each - (window.size - 1) * window.window_dilation - 1) // window.stride + 1
    return max(1, min(axis.out, most))


def strips_of(kernel: Kernel, problem: Problem, element_bytes: int,
            widest: int | None = None) -> Iterator[tuple[Strip, Strip, Strip]]:
    """Pieces of the outputs whose input, of so many bytes a place, fits: depth by depth, rows, columns. widest: columns at
    most, as many as a product takes unless given; pieces are about equal then."""
    depth, rows, columns = problem.axes
    budget = strip_budget(kernel)
    each = depth.length(1) * element_bytes
    width = min(_fitting(columns, each * rows.length(1), budget), widest or kernel.target.tensor.moving_max)
    if widest is not None:
        width = -(-columns.out // -(-columns.out // width))
    for column in strips(kernel, columns, width):
        height = _fitting(rows, each * columns.length(column.count), budget)
        for plane in strips(kernel, depth, 1):
            for row in strips(kernel, rows, height):
                yield plane, row, column


def place_of(result: View, pieces: Sequence[Strip]) -> View:
    """The part [o, rows, columns] of an image's result that a strip of one depth gives."""
    plane, row, column = pieces
    return result.at(1, plane.start).cut(1, row.start, row.count).cut(2, column.start, column.count)
