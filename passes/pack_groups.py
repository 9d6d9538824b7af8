"""Groups of a convolution that together fill the tensor engine become one group.

Before, 32 groups of 4 channels:
  ROOT r = f32[8,128,56,56] convolution(x, w), feature_group_count=32, ..                     w: f32[128,4,3,3]
After:
  p = f32[128,128,3,3] select(own, w of each group beside the others', 0)     own: whether input and output have one group
  ROOT r = f32[8,128,56,56] convolution(x, p), .., frontend_attributes={nxcc.groups="32"}

A pass of the engine takes as long for 4 rows of the array as for 128, so the zeros cost weights, not time. Where few groups
would be left, all of them become one, which image programs take. A product with zero makes NaN of what is no number, in
channels of other groups, so where products are exact (see nxcc.compiler.choices.relayout) groups stay apart, and `apart` parts
them again.
"""

from __future__ import annotations

import re

import numpy as np

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder
from nxcc.ir.hlo.imagespace import is_depthwise
from nxcc.ir.hlo.marks import GROUPS
from nxcc.ir.hlo.module import Instruction, Module
from nxcc.passes.combiners import combiner
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
    found.frontend_attributes = dict(convolution.frontend_attributes) | {GROUPS: str(groups)}
    return found


def apart(convolution: Instruction, builder: Builder) -> Instruction | None:
    """A convolution whose groups were packed, with a kernel and groups as they were; None if its mark does not say so."""
    word = convolution.frontend_attributes.get(GROUPS, "")
    groups, left = int(word) if re.fullmatch(r"[0-9]{1,9}", word) else 0, convolution.attribute("feature_group_count")
    data, kernel = convolution.operands
    labels, dims = convolution.attribute("dim_labels"), kernel.shape.dims
    if groups <= left or groups % left:
        return None
    if dims[labels.kernel_output_feature] % groups or dims[labels.kernel_input_feature] % (groups // left):
        return None
    attributes = dict(convolution.attributes) | {"feature_group_count": groups}
    found = builder.make("convolution", data, _blocks(convolution, kernel, groups, groups // left, builder),
                         shape=convolution.shape, **attributes)
    found.frontend_attributes = {key: word for key, word in convolution.frontend_attributes.items() if key != GROUPS}
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


@dataclass(frozen=True)
class _Split:
    """A packed kernel with groups as dimensions: [.., together, inputs, .., groups / together, together, outputs, ..].

    wide: the packed kernel. dims: of these parts; of_inputs, of_outputs: which part counts the groups packed together.
    """

    wide: list[int]
    dims: list[int]
    of_inputs: int
    of_outputs: int

    @property
    def kept(self) -> list[int]:
        """The parts that the kernel has that is not packed."""
        return [n for n in range(len(self.dims)) if n != self.of_inputs]

    def own(self, builder: Builder) -> Instruction:
        """Whether input and output are of one group."""
        together = self.dims[self.of_inputs]
        same = builder.constant(np.eye(together, dtype=np.bool_))
        return builder.broadcast(same, self.dims, sorted((self.of_inputs, self.of_outputs)))


def _split(convolution: Instruction, inputs: int, groups: int, together: int) -> _Split:
    """inputs: channels that a group reads."""
    labels, dims = convolution.attribute("dim_labels"), convolution.operands[1].shape.dims
    wide: list[int] = []
    parts: list[int] = []
    place: dict[int, int] = {}
    for d, size in enumerate(dims):
        if d == labels.kernel_input_feature:
            place[d] = len(parts)
            parts += [together, inputs]
            wide.append(together * inputs)
            continue
        if d == labels.kernel_output_feature:
            place[d] = len(parts) + 1
            parts += [groups // together, together, size // groups]
        else:
            parts.append(size)
        wide.append(size)
    return _Split(wide, parts, place[labels.kernel_input_feature], place[labels.kernel_output_feature])


def _block_diagonal(convolution: Instruction, kernel: Instruction, groups: int, together: int, builder: Builder) -> Instruction:
    """The kernel with the inputs of all groups that become one, zeros for those of others."""
    split = _split(convolution, kernel.shape.dims[convolution.attribute("dim_labels").kernel_input_feature], groups, together)
    narrow = builder.reshape(kernel, [split.dims[n] for n in split.kept])
    zeros = builder.splat(kernel.shape.dtype, split.dims, 0)
    spread = builder.broadcast(narrow, split.dims, split.kept)
    return builder.reshape(builder.make("select", split.own(builder), spread, zeros), split.wide)


def _blocks(convolution: Instruction, kernel: Instruction, groups: int, together: int, builder: Builder) -> Instruction:
    """What `_block_diagonal` was made of. The zeros are negative, so that sums keep each element as it is."""
    d, dtype = convolution.attribute("dim_labels").kernel_input_feature, kernel.shape.dtype
    inputs = kernel.shape.dims[d] // together
    split = _split(convolution, inputs, groups, together)
    assert builder.computation.parent is not None
    chosen = builder.make("select", split.own(builder), builder.reshape(kernel, split.dims),
                          builder.splat(dtype, split.dims, -0.0))
    summed = builder.make("reduce", chosen, builder.splat(dtype, (), -0.0), dimensions=(split.of_inputs,),
                          called=(combiner(builder.computation.parent, "add", dtype, builder),))
    return builder.reshape(summed, [inputs if n == d else size for n, size in enumerate(kernel.shape.dims)])


_TABLE = rules_by_opcode((Rule("pack-groups", ("convolution",), _packed),))
