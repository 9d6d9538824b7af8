"""What an image program may hold on a target: answers the image fusion pass (see nxcc.passes.cost.ImageCapacity)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from nxcc.backends.berths import Berth, room
from nxcc.backends.capability.support import unsupported
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.images.geometry import phases, spread
from nxcc.backends.lowering.images.packed import FEW_CHANNELS
from nxcc.backends.lowering.images.program import plan_of
from nxcc.backends.lowering.images.stages import Program
from nxcc.backends.lowering.pointwise.formulas import emits
from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.imagespace import ImageMap, convolution_maps, is_depthwise
from nxcc.ir.hlo.module import Instruction

UNROLLED_CELLS = 64
"""Window cells, at most: each is a pass that is written once a piece."""

INPUTS = 22
"""Operands of a region; where registers hold their addresses, an engine has few."""

INPUTS_OF_BLOCKS = 96
"""Operands of a region of several blocks, each with a dozen factors and offsets."""

NEUTRAL = {"add": (0.0,), "maximum": (float("-inf"),), "minimum": (float("inf"),)}
"""Initial values that change nothing, by the operator of a window or a sum."""


@dataclass(frozen=True)
class TargetImageCapacity:
    """Image programs on one target. Half of the chip is left to the regions before and after."""

    target: Target
    spans_blocks: bool = False

    @property
    def max_inputs(self) -> int:
        return INPUTS_OF_BLOCKS if self.spans_blocks else INPUTS

    def supported(self, instruction: Instruction) -> bool:
        rule = _FORMS.get(instruction.opcode)
        if rule is not None:
            return rule(instruction, self.target) and unsupported(instruction, self.target) is None
        return instruction.opcode in (*emits(), "reshape") and instruction.shape.dtype.bits <= 32 and \
            all(o.shape.dtype.bits <= 32 for o in instruction.operands) and unsupported(instruction, self.target) is None

    def packs(self, convolution: Instruction) -> bool:
        labels = convolution.attribute("dim_labels")
        window = convolution.attribute("window").dims
        channels: int = convolution.operands[0].shape.dims[labels.input_feature]
        rows: int = window[max(0, len(window) - 2)].size if window else 1
        few = channels < FEW_CHANNELS and channels * rows <= self.target.partitions
        return any(w.size > 1 for w in window) and few and not is_depthwise(convolution)

    def fits(self, members: Sequence[Instruction], maps: Mapping[Instruction, ImageMap]) -> bool:
        order = self._order(members, maps)
        if order is None:
            return False
        program = Program(order, maps, members[0], self.target.partitions, members)
        if not program.is_sound:
            return False
        if any(spread(program.sizes(value)[1], self.target.partitions) is None for value in program.stage_of):
            return False
        return plan_of(program, room(self.target, Berth.LOWER).sbuf_bytes, 1) is not None

    @staticmethod
    def _order(members: Sequence[Instruction], maps: Mapping[Instruction, ImageMap]) -> list[Instruction] | None:
        """Members and what they read, operands first."""
        found: dict[Instruction, None] = {}
        for member in reversed(members):
            stack = [member]
            while stack:
                value = stack[-1]
                is_open = value in members or value.opcode == "broadcast"
                missing = [o for o in value.operands if is_open and o in maps and o not in found]
                if missing:
                    stack.extend(missing)
                    continue
                found.setdefault(value)
                stack.pop()
        return list(found)


def _convolution(instruction: Instruction, target: Target) -> bool:
    """Float products of whole images, channels of both sides spread well, a stride or a dilation of the base along an axis."""
    data, kernel = (operand.shape for operand in instruction.operands[:2])
    maps = convolution_maps(instruction)
    if len(instruction.operands) != 2 or maps is None or not instruction.attribute("window").dims:
        return False
    if data.dtype is not kernel.dtype or not instruction.shape.dtype.is_float:
        return False
    if data.dtype not in target.engines[Engine.PE].dtypes or not data.dtype.is_float or 0 in (*data.dims, *kernel.dims):
        return False
    if instruction.attribute("batch_group_count") > 1:
        return False
    if instruction.attribute("feature_group_count") > 1 and not is_depthwise(instruction):
        return False
    return _is_spread(instruction, target)


def _is_spread(instruction: Instruction, target: Target) -> bool:
    """Whether channels fill the partitions, and windows have few cells."""
    data, kernel = (operand.shape for operand in instruction.operands[:2])
    labels = instruction.attribute("dim_labels")
    inputs, outputs = data.dims[labels.input_feature], kernel.dims[labels.kernel_output_feature]
    windows = instruction.attribute("window").dims
    cells = math.prod(window.size for window in windows)
    if cells > UNROLLED_CELLS:
        return False
    if any(spread(channels, target.partitions) is None for channels in (inputs, outputs)):
        return False
    return all(phases(data.dims[d], 1, w) is not None for d, w in zip(labels.input_spatial, windows, strict=True))


def _reduction(instruction: Instruction, target: Target) -> bool:
    """A plain operator over floats that begins with what changes nothing."""
    if len(instruction.operands) != 2 or not instruction.shape.is_array or not instruction.shape.dtype.is_float:
        return False
    op = combiner(instruction.called[0])
    start = instruction.operands[1]
    if op not in NEUTRAL or start.opcode != "constant":
        return False
    value: float = start.attributes["literal"].array.item()
    return value in NEUTRAL[op]


def _reduce_window(instruction: Instruction, target: Target) -> bool:
    """Windows that hold an element each."""
    if not _reduction(instruction, target):
        return False
    data, result = instruction.operands[0].shape.dims, instruction.shape.dims
    windows = instruction.attribute("window").dims
    for size, out, window in zip(data, result, windows, strict=True):
        found = phases(size, out, window)
        if window.base_dilation != 1 or found is None or len(found) != 1:
            return False
        if any(not any(found[0].covers(cell, place, 1) for cell in found[0].cells) for place in range(out)):
            return False
    cells: int = math.prod(window.size for window in windows)
    return cells <= UNROLLED_CELLS


_FORMS = {"convolution": _convolution, "reduce-window": _reduce_window, "reduce": _reduction}

