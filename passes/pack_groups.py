"""Groups of a convolution that together fill the tensor engine become one group.

Before, 32 groups of 4 channels:
  ROOT r = f32[8,128,56,56] convolution(x, w), feature_group_count=32, ..                     w: f32[128,4,3,3]
After:
  p = f32[128,128,3,3] select(own, w of each group beside the others', 0)     own: whether input and output have one group
  ROOT r = f32[8,128,56,56] convolution(x, p), ..

A pass of the engine takes as long for 4 rows of the array as for 128, so the zeros cost weights, not time. Where few groups
would be left, all of them become one, which image programs take. A product with zero makes NaN of what is no number, in
channels of other groups, so where products are exact (see nxcc.compiler.choices.relayout) groups stay apart.
"""

from __future__ import annotations

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.imagespace import is_depthwise
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.rewriting import Rule, rewrite_module, rules_by_opcode

LANES = 128
"""Channels that a pass of the tensor engine takes in, and makes."""

WHOLE = 256
"""Channels up to which all groups become one, though passes multiply by blocks of zeros then."""

LEAST_READ = 1 << 16
"""Elements that a convolution reads at least: modules that read less turn bit by bit and keep groups apart."""


@dataclass(frozen=True)
class PackGroups:
    """exact: products keep what is no number where it is."""

    exact: bool = False
    name: str = "pack-groups"

    def run(self, module: Module) -> bool:
        return not self.exact and rewrite_module(module, _TABLE)


def _packed(convolution: Instruction, builder: Builder) -> Instruction | None:
    groups = convolution.attribute("feature_group_count")
    together = _together(convolution, groups)
    if together < 2:
        return None
    data, kernel = convolution.operands
    attributes = dict(convolution.attributes) | {"feature_group_count": groups // together}
    if groups == together:
        del attributes["feature_group_count"]
    found = builder.make("convolution", data, _block_diagonal(convolution, kernel, groups, together, builder),
                         shape=convolution.shape, **attributes)
    found.frontend_attributes = dict(convolution.frontend_attributes)
    return found


def _together(convolution: Instruction, groups: int) -> int:
    """How many groups become one."""
    if groups < 2 or convolution.attribute("batch_group_count") > 1 or len(convolution.operands) != 2:
        return 1
    data, kernel = convolution.operands
    labels = convolution.attribute("dim_labels")
    inputs = kernel.shape.dims[labels.kernel_input_feature]
    outputs = kernel.shape.dims[labels.kernel_output_feature] // groups
    if is_depthwise(convolution) or inputs < 2 or not kernel.shape.dtype.is_float:
        return 1
    if data.shape.element_count + kernel.shape.element_count <= LEAST_READ:
        return 1
    widest = max(inputs, outputs)
    if groups * widest <= WHOLE:
        return groups
    return next((n for n in range(groups, 1, -1) if groups % n == 0 and n * widest <= LANES), 1)


def _block_diagonal(convolution: Instruction, kernel: Instruction, groups: int, together: int, builder: Builder) -> Instruction:
    """The kernel with the inputs of all groups that become one, zeros for those of others."""
    labels, dims = convolution.attribute("dim_labels"), kernel.shape.dims
    i, o = labels.kernel_input_feature, labels.kernel_output_feature
    outputs = dims[o] // groups
    # [.., inputs, .., groups / together, together, outputs, ..], with the groups that inputs belong to before the inputs
    split: list[int] = []
    kept: list[int] = []
    place: dict[str, int] = {}
    for d, size in enumerate(dims):
        if d == i:
            place["of inputs"] = len(split)
            split.append(together)
        if d == o:
            kept += [len(split), len(split) + 1, len(split) + 2]
            place["of outputs"] = len(split) + 1
            split += [groups // together, together, outputs]
        else:
            kept.append(len(split))
            split.append(size)
    parts = [size for n, size in enumerate(split) if n != place["of inputs"]]
    spread = builder.broadcast(builder.reshape(kernel, parts), split, kept)
    own = builder.broadcast(builder.constant(np.eye(together, dtype=np.bool_)), split, sorted(place.values()))
    zeros = builder.splat(kernel.shape.dtype, split, 0)
    wide = [size * together if d == i else size for d, size in enumerate(dims)]
    return builder.reshape(builder.make("select", own, spread, zeros), wide)


_TABLE = rules_by_opcode((Rule("pack-groups", ("convolution",), _packed),))
