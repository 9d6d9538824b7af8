"""A convolution whose windows choose elements and never slide is a product.

Before, as XLA writes products for TPUs; x: bf16[12,128,64], w: bf16[12,96,64]
  c = f32[12,128,96] convolution(x, w), window={size=12 stride=11 lhs_dilate=12}, dim_labels=0bf_0oi->0bf
After:
  c = f32[12,128,96] dot(x, w), lhs_batch_dims={0}, lhs_contracting_dims={2}, rhs_batch_dims={0}, rhs_contracting_dims={2}

Each spatial dimension is looked at for itself: which element of the data meets which of the kernel, for which result. Where all
three go along together it is a batch dimension, where the result has one place a summed one, and where one side has one element
a free dimension of the other. Images whose dimensions are all free or summed are left to the rules for images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.patterns import transpose_to
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

MEETINGS = 1 << 20
"""Places times cells of a window that are looked at, at most."""

BATCH, SUMMED, DATA, KERNEL = "batch", "summed", "data", "kernel"
"""What a dimension is of: both sides and the result, both sides, the data and the result, the kernel and the result."""


@dataclass(frozen=True)
class ConvolutionProducts:
    name: str = "convolution-products"

    def run(self, module: Module) -> bool:
        return rewrite_module(module, _TABLE)


def _product(convolution: Instruction, builder: Builder) -> Instruction | None:
    if convolution.attribute("feature_group_count") > 1 or convolution.attribute("batch_group_count") > 1:
        return None
    kinds = _kinds(convolution)
    if len(convolution.operands) != 2 or kinds is None:
        return None
    labels = convolution.attribute("dim_labels")
    data = {labels.input_batch: (DATA, labels.output_batch), labels.input_feature: (SUMMED, -1)}
    kernel = {labels.kernel_output_feature: (KERNEL, labels.output_feature), labels.kernel_input_feature: (SUMMED, -1)}
    for kind, d, k, out in zip(kinds, labels.input_spatial, labels.kernel_spatial, labels.output_spatial, strict=True):
        data[d] = kernel[k] = kind, out
    left, left_roles = _without(convolution.operands[0], data, KERNEL, builder)
    right, right_roles = _without(convolution.operands[1], kernel, DATA, builder)
    both = [role for role in left_roles if role in right_roles]
    batch, summed = ([role for role in both if role[0] == kind] for kind in (BATCH, SUMMED))
    notes = {key: convolution.attributes[key] for key in ("operand_precision", "algorithm") if key in convolution.attributes}
    dot = builder.dot(left, right, (_places(left_roles, summed), _places(right_roles, summed)),
                      (_places(left_roles, batch), _places(right_roles, batch)), convolution.shape.dtype, **notes)
    dot.frontend_attributes = dict(convolution.frontend_attributes)
    made = [out for _, out in (*batch, *(role for role in left_roles if role not in both),
                               *(role for role in right_roles if role not in both))]
    turned = transpose_to(builder, dot, [made.index(out) for out in sorted(made)])
    dims = convolution.shape.dims
    return turned if turned.shape.dims == dims else builder.reshape(turned, dims)


def _places(roles: Sequence[tuple[str, int]], wanted: Sequence[tuple[str, int]]) -> list[int]:
    return [roles.index(role) for role in wanted]


def _without(value: Instruction, roles: dict[int, tuple[str, int]], other: str,
             builder: Builder) -> tuple[Instruction, list[tuple[str, int]]]:
    """The operand without the dimensions, of size 1, along which the other one runs; and the roles of those that are left."""
    kept = [d for d in range(value.shape.rank) if roles[d][0] != other]
    if len(kept) < value.shape.rank:
        value = builder.reshape(value, [value.shape.dims[d] for d in kept])
    return value, [roles[d] for d in kept]


def _kinds(convolution: Instruction) -> list[str] | None:
    """What each spatial dimension is; None if one slides, or if none makes the convolution more than one of images."""
    labels = convolution.attribute("dim_labels")
    data, kernel = (operand.shape.dims for operand in convolution.operands[:2])
    windows = convolution.attribute("window").dims
    found: list[str] = []
    for d, out, window in zip(labels.input_spatial, labels.output_spatial, windows, strict=True):
        kind = _kind(data[d], convolution.shape.dims[out], window)
        if kind is None:
            return None
        found.append(kind)
    sizes = [kernel[k] for k in labels.kernel_spatial]
    chooses = any(kind in (BATCH, KERNEL) and size > 1 for kind, size in zip(found, sizes, strict=True))
    return found if chooses or not found else None


def _kind(size: int, places: int, window: WindowDimension) -> str | None:
    """What the elements that meet make of one dimension: of `size` elements of the data, for `places` of the result."""
    kind, count = _candidate(size, places, window.size)
    if not kind or places * window.size > MEETINGS:
        return None
    cell, place = np.meshgrid(np.arange(window.size), np.arange(places), indexing="ij")
    at = place * window.stride - window.padding_low + cell * window.window_dilation
    element, rest = np.divmod(at, window.base_dilation)
    meet = (rest == 0) & (element >= 0) & (element < size)
    cell = window.size - 1 - cell if window.reversal else cell
    met = {BATCH: (element == cell) & (cell == place), SUMMED: element == cell, DATA: element == place, KERNEL: cell == place}
    return kind if np.count_nonzero(meet) == count and bool(met[kind][meet].all()) else None


def _candidate(size: int, places: int, cells: int) -> tuple[str, int]:
    """The only kind that sizes allow, and how often elements meet then; empty if none."""
    fitting = {DATA: cells == 1 and size == places, KERNEL: size == 1 and cells == places,
               SUMMED: places == 1 and size == cells, BATCH: size == cells == places}
    return next(((kind, max(size, cells)) for kind, fits in fitting.items() if fits), ("", 0))


RULES = (Rule("product-of-chosen-elements", ("convolution",), _product),)
_TABLE = rules_by_opcode(RULES)
