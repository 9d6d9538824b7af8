"""A convolution with a window larger than its result, as the gradient of a kernel is, becomes one product for each shift.

Before:
  k = f32[3,3,64,32] convolution(x, g), window={size=28x28 pad=1_1x1_1}, dim_labels=f01b_i01o->01bf
                                        x: f32[8,28,28,64], the images; g: f32[8,28,28,32], the gradient of the result
After:
  p = f32[8,30,30,64] pad(x, 0)         y = f32[7262,64] pad(reshape(p), 0)        zeros to the end of the last shift
  q = f32[8,30,30,32] pad(g, 0)         h = f32[7200,32] reshape(q)
  d_ij = f32[64,32] dot(slice(y, rows [30 i + j, 30 i + j + 7200)), h), contracting dimension 0 of both
  k = f32[3,3,64,32] reshape(concatenate(d_00, d_01, ..))

As a convolution this takes a step for each element of the window, here 784 for each image, and multiplies as many channels in a
step as there are images. As products the images and the positions lie on the partitions and nothing has to be turned. The
zeros behind each row of the gradient make every shift of the images one run of rows. Where the convolution had strides the
window is dilated: what lies between two of its elements are then columns of the product. Where its kernel was dilated shifts
are as far apart. Of a transposed convolution the images are dilated, and the two sides exchange: k is then found backwards.
A few channels of all shifts are rows of one product, which reads the gradient once.

A zero behind a row meets the images' next row, so that a NaN or an infinity there would come into sums to which it does not
belong; what is small is cut out shift by shift instead, and so is what Vector multiplies, which takes as long. A product says
how its rows lie, frontend_attributes={nxcc.rows_summed="8,28,28 of 8,30,30"}, and `of_rows_alone` leaves out the others again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product as iterate
from math import ceil, prod
from operator import mul
from typing import Any

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import PaddingDimension, Window, WindowDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.marks import SUMMED
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.combiners import combiner
from nxcc.passes.patterns import reshape_to, transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module

RESULTS = 64
"""Elements of the result in its spatial dimensions, at most: each may be a product."""

MOST_LEFT_OUT = 4
"""How many times the rows that a product sums there are at most: shifts go over half of an image."""

FEW_CHANNELS = 32
"""Columns of the images up to which one product reads those of all shifts: the gradient has as many or more."""

LANES = 128
"""Rows and columns that the tensor engine multiplies at once."""


@dataclass(frozen=True)
class KernelGradients:
    """exact_up_to: how many elements a convolution may read so that its shifts are cut out, which keeps a NaN in its place."""

    exact_up_to: float = 0
    name: str = "kernel-gradients"

    def run(self, module: Module) -> bool:
        def products(convolution: Instruction, builder: Builder) -> Instruction | None:
            if not _is_gradient(convolution):
                return _exchanged(convolution, builder)
            read = sum(operand.shape.element_count for operand in convolution.operands)
            is_apart = read <= self.exact_up_to or convolution.attribute("batch_group_count") > 1 and _ends(convolution)[0] == 1
            return (_cut_out if is_apart else _shifted)(convolution, builder)

        return rewrite_module(module, {"convolution": (Rule("products-of-shifts", ("convolution",), products),)})


def _is_gradient(convolution: Instruction) -> bool:
    """Floats, images that are not dilated; more window than result."""
    if len(convolution.operands) != 2 or convolution.shape.element_count == 0:
        return False
    images, kernel = convolution.operands
    windows = convolution.attribute("window").dims
    if not all(value.shape.dtype.is_float for value in (convolution, images, kernel)):
        return False
    if any(w.base_dilation > 1 or w.reversal or w.stride > 1 and w.window_dilation > 1 for w in windows):
        return False
    if convolution.attribute("feature_group_count") > 1:
        return False
    results = prod(convolution.shape.dims[d] for d in convolution.attribute("dim_labels").output_spatial)
    return results <= RESULTS and 2 * results <= prod(w.size for w in windows) and images.shape.element_count > 0


def _exchanged(convolution: Instruction, builder: Builder) -> Instruction | None:
    """Images that are dilated as the kernel of a gradient, which reads the other side: its result is the same backwards."""
    if len(convolution.operands) != 2 or convolution.shape.element_count == 0:
        return None
    windows, labels = convolution.attribute("window").dims, convolution.attribute("dim_labels")
    images, kernel = convolution.operands
    plain = all(w == WindowDimension(w.size, 1, w.padding_low, w.padding_high, 1, w.base_dilation) for w in windows)
    if not plain or all(w.base_dilation == 1 for w in windows) or images.shape.element_count == 0:
        return None
    if convolution.attribute("batch_group_count") > 1 or convolution.attribute("feature_group_count") > 1:
        return None
    results = [convolution.shape.dims[d] for d in labels.output_spatial]
    extents = [images.shape.dims[d] for d in labels.input_spatial]
    if prod(results) > RESULTS or 2 * prod(results) > prod(extents) or not kernel.shape.dtype.is_float:
        return None
    dims = []
    for w, result, extent in zip(windows, results, extents, strict=True):
        low = result - 1 - w.padding_low
        high = result + (extent - 1) * w.base_dilation - w.size - low
        dims.append(WindowDimension(extent, 1, low, high, w.base_dilation))
    turned = replace(
        labels, input_batch=labels.kernel_output_feature, input_feature=labels.kernel_input_feature,
        input_spatial=labels.kernel_spatial, kernel_input_feature=labels.input_feature,
        kernel_output_feature=labels.input_batch, kernel_spatial=labels.input_spatial,
        output_batch=labels.output_feature, output_feature=labels.output_batch)
    made = builder.make("convolution", kernel, images, shape=convolution.shape.without_layout(), window=Window(tuple(dims)),
                        dim_labels=turned, **_notes(convolution))
    made.frontend_attributes = dict(convolution.frontend_attributes)
    return builder.make("reverse", made, dimensions=tuple(sorted(labels.output_spatial)))


@dataclass(frozen=True)
class _Sizes:
    """Along each spatial dimension: the result's extent, the window's steps, how far apart these lie, and how far apart windows
    are, the shifts of whole steps that the result takes, and how many steps an image then has."""

    results: tuple[int, ...]
    steps: tuple[int, ...]
    between: tuple[int, ...]
    strides: tuple[int, ...]
    shifts: tuple[int, ...]
    rows: tuple[int, ...]

    def summed(self, images: int) -> dict[str, str]:
        """How the rows of a product of flat images lie, where zeros lie among them."""
        if self.rows == self.steps:
            return {}
        return {SUMMED: " of ".join(",".join(map(str, (images, *extents))) for extents in (self.steps, self.rows))}

    @property
    def runs(self) -> list[int]:
        """Rows of the flat image from one step to the next."""
        return [prod(self.rows[d + 1:]) for d in range(len(self.rows))]

    def offsets(self) -> list[int]:
        """The first row that each shift reads."""
        runs = list(map(mul, self.runs, self.strides))
        return [sum(map(mul, shift, runs)) for shift in iterate(*map(range, self.shifts))]


def _sizes(convolution: Instruction) -> _Sizes:
    windows = convolution.attribute("window").dims
    results = tuple(convolution.shape.dims[d] for d in convolution.attribute("dim_labels").output_spatial)
    steps, between = tuple(w.size for w in windows), tuple(w.window_dilation for w in windows)
    strides = tuple(w.stride for w in windows)
    shifts = tuple(map(lambda size, apart: ceil(size / apart), results, between))
    rows = tuple(a + (b - 1) * c for a, b, c in zip(steps, shifts, strides, strict=True))
    return _Sizes(results, steps, between, strides, shifts, rows)


def _shifted(convolution: Instruction, builder: Builder) -> Instruction:
    """Products of runs of rows; [shift.., between.., channels, outputs] becomes the result."""
    sizes = _sizes(convolution)
    gradient = _gradient(convolution, builder)
    count, rank = gradient.shape.dims[0], len(sizes.steps)
    longer = [(0, 0), *((0, a - b) for a, b in zip(sizes.rows, sizes.steps, strict=True)), (0, 0)]
    flat = builder.reshape(_padded(gradient, longer, builder), (count * prod(sizes.rows), gradient.shape.dims[-1]))
    images = _flat_images(convolution, sizes, builder)
    taken = flat.shape.dims[0] - sizes.offsets()[-1]
    flat = builder.slice(flat, (0, 0), (taken, flat.shape.dims[1]))
    marks = sizes.summed(count)
    if convolution.attribute("batch_group_count") == 1 and images.shape.dims[1] <= FEW_CHANNELS:
        products = _product_of_shifts(convolution, images, flat, sizes.offsets(), builder, marks)
    else:
        read = [builder.slice(images, (first, 0), (first + taken, images.shape.dims[1])) for first in sizes.offsets()]
        products = _joined([_product(convolution, rows, flat, builder, marks) for rows in read], builder)
    found = builder.reshape(products, (*sizes.shifts, *sizes.between, *_ends(convolution)))
    pairs = [d for n in range(rank) for d in (n, rank + n)]
    found = transpose_to(builder, found, (*pairs, 2 * rank, 2 * rank + 1))
    whole = [a * b for a, b in zip(sizes.shifts, sizes.between, strict=True)]
    found = reshape_to(builder, found, (*whole, *_ends(convolution)))
    return _in_place(convolution, _cut(found, (*sizes.results, *_ends(convolution)), builder), builder)


def _cut_out(convolution: Instruction, builder: Builder) -> Instruction:
    """Products of what each element of the result reads, and of nothing else."""
    sizes = _sizes(convolution)
    gradient = _gradient(convolution, builder)
    count, rows = gradient.shape.dims[0], gradient.shape.element_count // gradient.shape.dims[-1]
    flat = builder.reshape(gradient, (rows, gradient.shape.dims[-1]))
    images = _padded(_images(convolution, builder), _edges(convolution, sizes), builder)
    parts = []
    for shift in iterate(*map(range, sizes.results)):
        at = tuple(map(mul, shift, sizes.strides))
        ends = [a + (n - 1) * step + 1 for a, n, step in zip(at, sizes.steps, sizes.between, strict=True)]
        read = builder.slice(images, (0, *at, 0), (count, *ends, images.shape.dims[-1]), (1, *sizes.between, 1))
        parts.append(_product(convolution, builder.reshape(read, (rows, images.shape.dims[-1])), flat, builder))
    found = builder.reshape(_joined(parts, builder), (*sizes.results, *_ends(convolution)))
    return _in_place(convolution, found, builder)


def of_rows_alone(dot: Instruction, builder: Builder) -> Instruction | None:
    """A product of rows among which zeros lie, without what meets these; None if its mark does not say so."""
    sides = [dot.attribute("lhs_contracting_dims"), dot.attribute("rhs_contracting_dims")]
    summed = prod(dot.operands[0].shape.dims[d] for d in sides[0])
    is_row = _rows(dot.frontend_attributes.get(SUMMED, ""), summed)
    if is_row is None or len(sides[0]) != 1:
        return None
    rows = builder.constant(is_row)
    masked = []
    for value, dims in zip(dot.operands, sides, strict=True):
        zeros = builder.splat(value.shape.dtype, value.shape.dims, 0)
        masked.append(builder.make("select", builder.broadcast(rows, value.shape.dims, dims), value, zeros))
    found = builder.make("dot", *masked, shape=dot.shape, **dot.attributes)
    found.frontend_attributes = {key: word for key, word in dot.frontend_attributes.items() if key != SUMMED}
    return found


def _rows(mark: str, count: int) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
    """Which of `count` summed rows are none of zeros; None if the mark is none, or of other rows."""
    parts = [part.split(",") for part in mark.split(" of ")]
    if not all(re.fullmatch("[0-9]{1,9}", size) for part in parts for size in part) or len({*map(len, parts)}) != 1:
        return None
    inner, outer = ([int(size) for size in part] for part in (parts[0], parts[-1]))
    if not count <= prod(outer) <= MOST_LEFT_OUT * count:
        return None
    found = np.zeros(outer, np.bool_)
    found[tuple(map(slice, inner))] = True
    return found.reshape(-1)[:count]


def _product(convolution: Instruction, images: Instruction, gradient: Instruction, builder: Builder,
             attributes: Mapping[str, str] | None = None) -> Instruction:
    """images [rows, between x channels] and gradient [rows, outputs] summed over rows, as [1, all elements]; channel by channel
    where each is a group of its own. attributes: what a dot says of itself."""
    if convolution.attribute("batch_group_count") > 1 and _ends(convolution)[0] == 1:
        return _product_of_channels(convolution, images, gradient, builder)
    if convolution.attribute("batch_group_count") > 1:
        return _product_of_groups(convolution, images, gradient, builder, attributes)
    found = builder.dot(images, gradient, ((0,), (0,)), dtype=convolution.shape.dtype, **_notes(convolution))
    found.frontend_attributes = {**convolution.frontend_attributes, **(attributes or {})}
    return builder.reshape(found, (1, found.shape.element_count))


def _notes(convolution: Instruction) -> dict[str, Any]:
    return {key: convolution.attributes[key] for key in ("operand_precision", "algorithm") if key in convolution.attributes}


def _product_of_shifts(convolution: Instruction, images: Instruction, gradient: Instruction, offsets: Sequence[int],
                       builder: Builder, attributes: Mapping[str, str]) -> Instruction:
    """As the products of all shifts, [shifts, all elements]: one whose rows are the columns of all shifts, which lie turned."""
    turned = builder.transpose(images, (1, 0))
    columns, taken = images.shape.dims[1], gradient.shape.dims[0]
    shifted = [builder.slice(turned, (0, first), (columns, first + taken)) for first in offsets]
    found = builder.dot(_joined(shifted, builder), gradient, ((1,), (0,)), dtype=convolution.shape.dtype, **_notes(convolution))
    found.frontend_attributes = {**convolution.frontend_attributes, **attributes}
    return builder.reshape(found, (len(offsets), columns * gradient.shape.dims[1]))


def _product_of_groups(convolution: Instruction, images: Instruction, gradient: Instruction, builder: Builder,
                       attributes: Mapping[str, str] | None) -> Instruction:
    """As many groups together as the tensor engine takes at once, of whose product the blocks on the diagonal are kept."""
    groups, (channels, every) = convolution.attribute("batch_group_count"), _ends(convolution)
    outputs, rows = every // groups, images.shape.dims[0]
    together = max(n for n in range(1, groups + 1) if groups % n == 0 and (n == 1 or n * max(channels, outputs) <= LANES))
    apart, between = groups // together, images.shape.dims[1] // (groups * channels)
    left = builder.reshape(images, (rows, between, apart, together * channels))
    right = builder.reshape(gradient, (rows, apart, together * outputs))
    found = builder.dot(left, right, ((0,), (0,)), ((2,), (1,)), dtype=convolution.shape.dtype, **_notes(convolution))
    found.frontend_attributes = {**convolution.frontend_attributes, **(attributes or {})}
    dims = (apart, between, together, channels, together, outputs)
    eye = builder.broadcast(builder.constant(np.eye(together, dtype=np.bool_)), dims, (2, 4))
    blocks = builder.make("select", eye, builder.reshape(found, dims), builder.splat(found.shape.dtype, dims, 0))
    assert builder.computation.parent is not None
    kept = builder.make("reduce", blocks, builder.splat(found.shape.dtype, (), 0), dimensions=(2,),
                        called=(combiner(builder.computation.parent, "add", found.shape.dtype, builder),))
    return builder.reshape(builder.transpose(kept, (1, 2, 0, 3, 4)), (1, kept.shape.element_count))


def _product_of_channels(convolution: Instruction, images: Instruction, gradient: Instruction, builder: Builder) -> Instruction:
    channels = convolution.attribute("batch_group_count")
    rows, columns = images.shape.dims
    dims = (rows, columns // channels, channels, gradient.shape.dims[1] // channels)
    wide = [builder.convert(value, F32) for value in (images, gradient)]
    left = builder.broadcast(builder.reshape(wide[0], dims[:3]), dims, (0, 1, 2))
    right = builder.broadcast(builder.reshape(wide[1], (rows, *dims[2:])), dims, (0, 2, 3))
    assert builder.computation.parent is not None
    sums = builder.make("reduce", builder.make("multiply", left, right), builder.splat(F32, (), 0), dimensions=(0,),
                        called=(combiner(builder.computation.parent, "add", F32, builder),))
    return builder.convert(builder.reshape(sums, (1, prod(dims[1:]))), convolution.shape.dtype)


def _ends(convolution: Instruction) -> tuple[int, int]:
    """The result's channels, which the convolution calls its batch, and its outputs."""
    labels = convolution.attribute("dim_labels")
    return convolution.shape.dims[labels.output_batch], convolution.shape.dims[labels.output_feature]


def _images(convolution: Instruction, builder: Builder) -> Instruction:
    """As [images, spatial.., channels]; the convolution calls images its feature and channels its batch."""
    labels = convolution.attribute("dim_labels")
    return transpose_to(builder, convolution.operands[0], (labels.input_feature, *labels.input_spatial, labels.input_batch))


def _gradient(convolution: Instruction, builder: Builder) -> Instruction:
    """As [images, spatial.., outputs]."""
    labels = convolution.attribute("dim_labels")
    order = (labels.kernel_input_feature, *labels.kernel_spatial, labels.kernel_output_feature)
    return transpose_to(builder, convolution.operands[1], order)


def _edges(convolution: Instruction, sizes: _Sizes) -> list[tuple[int, int]]:
    """What to put around images, or to cut off, so that each spatial extent is `rows` steps and the result begins at 0."""
    labels = convolution.attribute("dim_labels")
    extents = [convolution.operands[0].shape.dims[d] for d in labels.input_spatial]
    lows = [w.padding_low for w in convolution.attribute("window").dims]
    wanted = map(mul, sizes.rows, sizes.between)
    return [(0, 0), *((low, want - extent - low) for low, extent, want in zip(lows, extents, wanted, strict=True)), (0, 0)]


def _flat_images(convolution: Instruction, sizes: _Sizes, builder: Builder) -> Instruction:
    """[images x rows.., between.. x channels]."""
    padded = _padded(_images(convolution, builder), _edges(convolution, sizes), builder)
    count, channels, rank = padded.shape.dims[0], padded.shape.dims[-1], len(sizes.rows)
    split = [extent for pair in zip(sizes.rows, sizes.between, strict=True) for extent in pair]
    parted = reshape_to(builder, padded, (count, *split, channels))
    order = (0, *(1 + 2 * d for d in range(rank)), *(2 + 2 * d for d in range(rank)), 2 * rank + 1)
    return reshape_to(builder, transpose_to(builder, parted, order), (count * prod(sizes.rows), prod(sizes.between) * channels))


def _padded(value: Instruction, edges: list[tuple[int, int]], builder: Builder) -> Instruction:
    if not any(map(any, edges)):
        return value
    padding = tuple(PaddingDimension(low, high) for low, high in edges)
    return builder.make("pad", value, builder.splat(value.shape.dtype, (), 0), padding=padding)


def _cut(value: Instruction, dims: Sequence[int], builder: Builder) -> Instruction:
    return value if tuple(dims) == value.shape.dims else builder.slice(value, [0] * len(dims), dims)


def _joined(parts: list[Instruction], builder: Builder) -> Instruction:
    return parts[0] if len(parts) == 1 else builder.make("concatenate", *parts, dimensions=(0,))


def _in_place(convolution: Instruction, found: Instruction, builder: Builder) -> Instruction:
    """[spatial.., channels, outputs] in the convolution's order."""
    labels = convolution.attribute("dim_labels")
    made = (*labels.output_spatial, labels.output_batch, labels.output_feature)
    return transpose_to(builder, found, [made.index(d) for d in range(len(made))])
