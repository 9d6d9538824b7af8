"""Convolutions of few output channels: neighbouring rows of the result lie on partitions beside each other.

A product for 32 or 64 output channels leaves half of the tensor engine's columns empty. Here its columns are those channels
twice, for an even row of the result and for the next one: the window gets one more row, moves by two, and its weights hold
zeros where a row of the result does not read a row of the window. With a stride of s it has s more rows and moves by 2 s.

  window rows e of two rows p of the result:    weights[e, p * outputs + o] = kernel[e - p * stride, o], or 0

Rows then leave one by one, so they must not be too short for transfers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from nxcc.backends.lowering.images.geometry import LEAST_LANES, Cell, Phase
from nxcc.backends.lowering.images.stages import Program
from nxcc.backends.lowering.images.weights import weights_view
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.imagespace import ROW, ImageMap
from nxcc.ir.hlo.module import Instruction

HALVES = 2
"""Rows of the result beside each other."""

LEAST_BYTES = 192
"""Bytes of a row of the result, at least."""


class PairedProgram(Program):
    """A program of one convolution whose result, and all that is computed with it, has its rows in pairs."""

    def __init__(self, order: Sequence[Instruction], maps: Mapping[Instruction, ImageMap], root: Instruction, partitions: int,
                 head: Instruction) -> None:
        self.before = _ancestors(head.operands[0])
        super().__init__(order, maps, root, partitions)

    def halves(self, value: Instruction) -> int:
        return 1 if value in self.before else HALVES

    def sizes(self, value: Instruction) -> tuple[int, int, int, int]:
        images, channels, rows, columns = super().sizes(value)
        halves = self.halves(value)
        return images, channels * halves, rows // halves, columns

    def view(self, view: View, value: Instruction) -> View:
        """As that of Program; the first of each pair of rows."""
        found = super().view(view, value)
        halves = self.halves(value)
        stride, rows = found.dims[2]
        return replace(found, dims=(*found.dims[:2], (stride * halves, rows // halves), found.dims[3]))

    def phases(self, head: Instruction, mark: int) -> list[Phase]:
        if mark != ROW:
            return super().phases(head, mark)
        window = head.attribute("window").dims[0]
        cells = tuple(Cell(e, e - window.padding_low) for e in range(window.size + window.stride))
        return [Phase(0, 1, self.sizes(head)[2], HALVES * window.stride, self.sizes(head.operands[0])[2], cells)]

    def shifts(self, head: Instruction) -> tuple[int, ...]:
        return 0, head.attribute("window").dims[0].stride

    def weight_bytes(self, head: Instruction) -> int:
        window = head.attribute("window").dims[0]
        found = super().weight_bytes(head)
        return found if head in self.packed else found * HALVES * (window.size + window.stride) // window.size


def _ancestors(value: Instruction) -> frozenset[Instruction]:
    """A value and what it is computed from."""
    found = {value}
    waiting = [value]
    while waiting:
        fresh = [o for o in waiting.pop().operands if o not in found]
        found.update(fresh)
        waiting += fresh
    return frozenset(found)


def paired(program: Program, weights: Mapping[Instruction, View], most: int) -> PairedProgram | None:
    """The program with rows in pairs; None where it has another form, or nothing is gained.

    weights: views of the parameters. most: columns of the tensor engine.
    """
    if len(program.heads) != 1 or program.heads[0].opcode != "convolution":
        return None
    (head,) = program.heads
    if head in program.depthwise:
        return None
    _, outputs, rows, columns = program.sizes(head)
    windows = head.attribute("window").dims
    if len(windows) != 2 or rows % HALVES or outputs % LEAST_LANES or outputs * HALVES > most:
        return None
    window = windows[0]
    if window != WindowDimension(window.size, window.stride, window.padding_low, window.padding_high):
        return None
    if window.size <= window.stride or columns * program.root.shape.dtype.byte_size < LEAST_BYTES:
        return None
    before = _ancestors(head.operands[0])
    if any(user not in before and user is not head for value in before & program.stage_of.keys() for user in value.users):
        return None
    kernel = weights_view(head, weights[head.operands[1]])
    if head in program.packed and abs(kernel.dims[-1][0]) != kernel.dtype.byte_size:
        return None
    return PairedProgram(program.order, program.maps, program.root, program.partitions, head)
