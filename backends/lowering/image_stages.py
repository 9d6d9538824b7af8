"""The structure of an image program: its stages, which values have tiles of their own, sizes and windows.

A stage is a head (a convolution, a window, a sum over places) with the elementwise work on its result; stage 0 is work on
operands alone. The capacity that fusion asks and the lowering read the same structure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nxcc.backends.lowering.image_geometry import Channels, Phase, phases, spread
from nxcc.backends.lowering.image_weights import weight_bytes
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.imagespace import BATCH, CHANNEL, COLUMN, HEADS, ROW, ImageMap, channel_like, sizes_of
from nxcc.ir.hlo.module import Instruction


@dataclass
class Stage:
    """A head, None for work on operands alone, and the elementwise members after it, operands first."""

    head: Instruction | None
    members: list[Instruction] = field(default_factory=list)


def parts_of(head: Instruction) -> list[Instruction]:
    """The images that a head reads, side by side along channels."""
    found = []
    stack = [head.operands[0]]
    while stack:
        value = stack.pop()
        if value.opcode == "concatenate":
            stack.extend(reversed(value.operands))
        else:
            found.append(value)
    return found


class Program:
    """order: members and what they read, operands before users. maps: of all images and columns. root: the result.

    partitions: of the target. outside: values that come from outside, by None or the like; parameters are.
    """

    def __init__(self, order: Sequence[Instruction], maps: Mapping[Instruction, ImageMap], root: Instruction, partitions: int,
                 members: Iterable[Instruction] | None = None) -> None:
        self.order, self.maps, self.root, self.partitions = order, maps, root, partitions
        inside = set(order if members is None else members)
        self.outside = {i for i in order if i.opcode == "parameter" or i not in inside}
        self.heads = [i for i in order if i.opcode in HEADS and i not in self.outside]
        images = {*self.heads, *(part for head in self.heads for part in parts_of(head))}
        images |= {i for i in order if i.opcode == "concatenate"}
        self.channels = channel_like(order, maps, images, self.outside)
        self.stage_of: dict[Instruction, int] = {}
        self.stages = self._stages()
        self.stored = self._stored()

    def _stages(self) -> list[Stage]:
        stages = [Stage(None), *(Stage(head) for head in self.heads)]
        for value in self.order:
            if value not in self.maps or value in self.channels:
                continue
            if value in self.outside:
                self.stage_of[value] = 0
            elif value in self.heads:
                self.stage_of[value] = self.heads.index(value) + 1
            else:
                self.stage_of[value] = max(self.stage_of[o] for o in value.operands if o in self.stage_of)
                if value.opcode != "concatenate":
                    stages[self.stage_of[value]].members.append(value)
        return stages

    def _stored(self) -> list[Instruction]:
        """Images with tiles of their own, operands first: what comes in, what another stage or the result reads."""
        return [value for value in self.order if value in self.stage_of and value.opcode != "concatenate" and (
            value is self.root or value in self.outside or any(self._reads_later(user, value) for user in value.users))]

    def _reads_later(self, user: Instruction, value: Instruction) -> bool:
        return user in self.heads or user.opcode == "concatenate" or self.stage_of.get(user, 0) > self.stage_of[value]

    @property
    def made(self) -> list[Instruction]:
        """Stored values that the program computes."""
        return [value for value in self.stored if value not in self.outside]

    def sizes(self, value: Instruction) -> tuple[int, int, int, int]:
        """Images, channels, rows, columns."""
        return sizes_of(value.shape.dims, self.maps[value])

    def spread(self, value: Instruction) -> Channels:
        found = spread(self.sizes(value)[1], self.partitions)
        assert found is not None
        return found

    def view(self, view: View, value: Instruction) -> View:
        """A value's memory as [channels, images, rows, columns]."""
        marks = self.maps[value]
        dims = [(view.dims[marks.index(mark)] if mark in marks else (0, 1)) for mark in (CHANNEL, BATCH, ROW, COLUMN)]
        return replace(view, dims=tuple(dims))

    def weight_bytes(self, head: Instruction) -> int:
        """Bytes a partition of a head's weights."""
        if head.opcode != "convolution":
            return 0
        return weight_bytes(head, [self.sizes(part)[1] for part in parts_of(head)], self.partitions)

    def image_bytes(self, value: Instruction, elements: int) -> int:
        """Bytes a partition of a stored value with so many elements a channel."""
        return self.spread(value).blocks * elements * value.shape.dtype.byte_size + 64

    def phases(self, head: Instruction, mark: int) -> list[Phase]:
        """A spatial axis of a head; the identity where it has no window."""
        found = phases(self.sizes(head.operands[0])[mark], self.sizes(head)[mark], self._window(head, mark))
        assert found is not None
        return found

    def _window(self, head: Instruction, mark: int) -> WindowDimension:
        if head.opcode == "convolution":
            windows = head.attribute("window").dims
            place = mark - COLUMN + len(windows) - 1
            return windows[place] if place >= 0 else WindowDimension(1)
        marks = self.maps[head.operands[0]]
        return head.attribute("window").dims[marks.index(mark)] if mark in marks else WindowDimension(1)

    def feeds(self, value: Instruction, head: Instruction) -> bool:
        """Whether a value of stage 0 is read by a head, itself or by way of another."""
        return value in parts_of(head) or any(self.feeds(user, head) for user in value.users
                                              if self.stage_of.get(user) == 0 and user.opcode != "concatenate")

    def strip_rows(self, value: Instruction, head: Instruction, rows: int) -> int:
        """At most so many rows of a value take part in `rows` outputs of each phase of the one head."""
        height = self.sizes(value)[2]
        axes = self.phases(head, ROW)
        if self.stage_of[value] or not self.feeds(value, head):
            return min(height, rows * axes[0].step)
        cells = [cell.shift for axis in axes for cell in axis.cells] or [0]
        return min(height, (rows - 1) * axes[0].stride + max(cells) - min(cells) + 1)
