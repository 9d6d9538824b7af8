"""The structure of an image program: its stages, which values have tiles of their own, sizes and windows.

A stage is a head (a convolution, a window, a sum over places) with the elementwise work on its result; stage 0 is work on
operands alone. The capacity that fusion asks and the lowering read the same structure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace

from nxcc.backends.lowering.images.geometry import Channels, Phase, phases, spread
from nxcc.backends.lowering.images.packed import FEW_CHANNELS, Packing, covers_a_column, packed_bytes, packing
from nxcc.backends.lowering.images.taps import taps_bytes
from nxcc.backends.lowering.images.weights import weight_bytes
from nxcc.backends.tile.program import View
from nxcc.ir.dtypes import F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.attributes import WindowDimension
from nxcc.ir.hlo.imagespace import BATCH, CHANNEL, COLUMN, HEADS, ROW, ImageMap, channel_like, is_depthwise, sizes_of
from nxcc.ir.hlo.module import Instruction

ALIGNMENT = 64
"""Bytes between places of tiles."""

DOUBLED = 32, 64
"""Channels of an image that comes twice: partitions on which the second may begin."""

BANK = 512
"""Places of a piece of a product."""


@dataclass
class Stage:
    """A head, None for work on operands alone, and the elementwise members after it, operands first."""

    head: Instruction | None
    members: list[Instruction] = field(default_factory=list)


class Program:
    """order: members and what they read, operands before users. maps: of all images and columns. root: the result.

    partitions: of the target. outside: values that come from outside, by None or the like; parameters are. joined: each channel
    of each image counts as a channel of one image, where nothing tells channels apart.
    """

    def __init__(self, order: Sequence[Instruction], maps: Mapping[Instruction, ImageMap], root: Instruction, partitions: int,
                 members: Iterable[Instruction] | None = None, joined: bool = False) -> None:
        self.order, self.maps, self.root, self.partitions, self.joined = order, maps, root, partitions, joined
        inside = set(order if members is None else members)
        self.outside = {i for i in order if i.opcode == "parameter" or i not in inside}
        self.heads = [i for i in order if i.opcode in HEADS and i not in self.outside]
        self.inside = inside - self.outside
        images = {*self.heads, *(part for head in self.heads for part in self.parts(head))}
        images |= {operand for image in images if image.opcode == "convert" for operand in image.operands}
        images |= {i for i in self.inside if i.opcode == "concatenate"}
        self.channels = channel_like(order, maps, images, self.outside)
        self.stage_of: dict[Instruction, int] = {}
        self.depthwise = {head for head in self.heads if is_depthwise(head)}
        self.packed = {head: found for head in self.heads if (found := self._packing(head)) is not None}
        self.stages = self._stages()
        self.stacked = {head: parts for head in self.heads if (parts := self._stack(head))}
        self.doubled = {head for head in self.heads if self._is_doubled(head)}
        self.stored = self._stored()

    @property
    def bank_bytes(self) -> int:
        """Bytes of a scratch tile for a piece of a product."""
        return BANK * F32.byte_size

    def parts(self, head: Instruction) -> list[Instruction]:
        """The images that a head reads, side by side along channels."""
        found = []
        stack = [head.operands[0]]
        while stack:
            value = stack.pop()
            if value.opcode == "concatenate" and value in self.inside:
                stack.extend(reversed(value.operands))
            else:
                found.append(value)
        return found

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
                self.stage_of[value] = max((self.stage_of[o] for o in value.operands if o in self.stage_of), default=0)
                if not self._is_join(value) and not self._is_cast_on_the_way(value):
                    stages[self.stage_of[value]].members.append(value)
        return stages

    def _stored(self) -> list[Instruction]:
        """Images with tiles of their own, operands first: what comes in, what another stage or the result reads."""
        return [value for value in self.order if value in self.stage_of and not self._is_join(value) and (
            value is self.root or any(self._reads_later(user, value) for user in value.users if user in self.inside))]

    def _is_join(self, value: Instruction) -> bool:
        return value.opcode == "concatenate" and value in self.inside

    def _is_cast_on_the_way(self, value: Instruction) -> bool:
        """Whether a value is only the cast of what a packed convolution reads."""
        return value not in self.outside and any(value is head.operands[0] for head in self.packed)

    def _packing(self, head: Instruction) -> Packing | None:
        """How a convolution of few channels of an image in memory packs them; None for others."""
        value = head.operands[0]
        if head.opcode != "convolution" or self._is_join(value) or self.sizes(value)[1] >= FEW_CHANNELS:
            return None
        if head in self.depthwise:
            return None
        if value not in self.outside and (value.opcode != "convert" or len(value.users) > 1):
            return None
        if value not in self.outside and value.operands[0] not in self.outside:
            return None
        rows, columns = self.phases(head, ROW), self.phases(head, COLUMN)
        if len(rows) > 1 or len(columns) > 1 or len(rows[0].cells) * len(columns[0].cells) == 1:
            return None
        return packing(self.sizes(value)[1], len(rows[0].cells), self.partitions) if covers_a_column(columns[0], BANK) else None

    def _stack(self, head: Instruction) -> list[Instruction]:
        """Images in memory that a convolution reads side by side and that fit on the partitions together; else none."""
        plain = head.opcode == "convolution" and head not in self.packed and head not in self.depthwise
        parts = self.parts(head) if plain else []
        if len(parts) < 2 or len(set(parts)) < len(parts) or not self.outside.issuperset(parts):
            return []
        alone = all(self._is_join(user) for part in parts for user in part.users if user in self.inside)
        return parts if alone and sum(self.sizes(part)[1] for part in parts) <= self.partitions else []

    def _is_doubled(self, head: Instruction) -> bool:
        """Whether a convolution's image comes twice, the second time a row further: a pass then sums over two window rows."""
        if head.opcode != "convolution" or head in self.packed or head in self.depthwise or len(self.parts(head)) > 1:
            return False
        (value,), rows = self.parts(head), self.phases(head, ROW)
        made = spread(self.sizes(value)[1], self.partitions)
        if made is None or made.blocks > 1 or made.lanes not in DOUBLED or 2 * made.lanes > self.partitions:
            return False
        neighbours = len(rows) == 1 and len(rows[0].cells) > 1 and rows[0].cells[1].shift - rows[0].cells[0].shift == 1
        return value in self.outside and neighbours and not head.attribute("window").dims[0].reversal

    def first_lane(self, value: Instruction) -> int:
        """The partition on which a stored value begins."""
        for parts in self.stacked.values():
            if value in parts:
                return sum(self.sizes(part)[1] for part in parts[:parts.index(value)])
        return 0

    def part_channels(self, head: Instruction) -> list[int]:
        """Channels of what a convolution's passes take at a time."""
        channels = [self.sizes(part)[1] for part in self.parts(head)]
        return [sum(channels)] if head in self.stacked else channels

    def packed_source(self, head: Instruction) -> Instruction:
        """The value in memory that a packed convolution reads."""
        value = head.operands[0]
        return value if value in self.outside else value.operands[0]

    def packed_bytes(self, head: Instruction, rows: int) -> int:
        """Bytes a partition of an image of a packed convolution, for so many output rows."""
        value = head.operands[0]
        return packed_bytes(self.packed[head], rows, self.sizes(value)[3], value.shape.dtype.byte_size) + 64

    def passing_bytes(self, head: Instruction) -> int:
        """Bytes a partition of what a window makes of one block of an image, besides its stored result."""
        if head.opcode != "reduce-window":
            return 0
        _, _, height, width = self.sizes(head)
        own = 0 if head in self.stored else height * width
        later = len(self.stages[self.stage_of[head]].members) * height * width
        return (self.sizes(head.operands[0])[2] * width + own + later) * F32.byte_size

    def _reads_later(self, user: Instruction, value: Instruction) -> bool:
        if user in self.packed or self._is_cast_on_the_way(user):
            return False
        if value in self.outside or user in self.heads or self._is_join(user):
            return True
        return self.stage_of.get(user, 0) > self.stage_of[value]

    @property
    def is_sound(self) -> bool:
        """Whether all work is on images: none on numbers and channels alone that something reads as an image. What keeps
        channels apart reads one image."""
        if any(len(self.parts(head)) > 1 for head in self.depthwise):
            return False
        return all(any(o in self.stage_of for o in value.operands) for stage in self.stages for value in stage.members)

    @property
    def made(self) -> list[Instruction]:
        """Stored values that the program computes."""
        return [value for value in self.stored if value not in self.outside]

    def sizes(self, value: Instruction) -> tuple[int, int, int, int]:
        """Images, channels, rows, columns."""
        images, channels, rows, columns = sizes_of(value.shape.dims, self.maps[value])
        return (1, images * channels, rows, columns) if self.joined else (images, channels, rows, columns)

    def halves(self, value: Instruction) -> int:
        """Neighbouring rows of a value that lie beside each other on partitions, each like channels of its own."""
        return 1

    def shifts(self, head: Instruction) -> tuple[int, ...]:
        """By how many window rows each of the neighbouring rows of a convolution's result is behind the first."""
        return (0,)

    def spread(self, value: Instruction) -> Channels:
        found = spread(self.sizes(value)[1], self.partitions)
        assert found is not None
        return found

    def view(self, view: View, value: Instruction) -> View:
        """A value's memory as [channels, images, rows, columns]."""
        marks = self.maps[value]
        channel, image, *places = (view.dims[marks.index(mark)] if mark in marks else (0, 1)
                                   for mark in (CHANNEL, BATCH, ROW, COLUMN))
        if self.joined:
            channel, image = (image[0] if image[1] > 1 else channel[0], channel[1] * image[1]), (0, 1)
        return replace(view, dims=(channel, image, *places))

    def weight_bytes(self, head: Instruction) -> int:
        """Bytes a partition of a head's weights."""
        if head.opcode != "convolution":
            return 0
        if head in self.depthwise:
            return taps_bytes(head, self.spread(head))
        if head in self.packed:
            return len(self.phases(head, COLUMN)[0].cells) * self.sizes(head)[1] * head.operands[1].shape.dtype.byte_size
        return weight_bytes(head, self.part_channels(head), self.partitions)

    def image_bytes(self, value: Instruction, elements: int) -> int:
        """Bytes a partition of a stored value with so many elements a channel."""
        return -(-self.spread(value).blocks * elements * value.shape.dtype.byte_size // ALIGNMENT) * ALIGNMENT

    def arena(self, sizes: Mapping[Instruction, int]) -> tuple[dict[Instruction, int], int]:
        """Places for stored values of so many bytes, and the bytes in all: values that are not there together share memory."""
        placed: dict[Instruction, int] = {}
        beside = {part: parts[0] for parts in self.stacked.values() for part in parts[1:]}
        for value in sorted(sizes, key=lambda v: (v in beside, self.stage_of[v], -sizes[v])):
            if value in beside:
                placed[value] = placed[beside[value]]
            else:
                placed[value] = self._place(value, placed, sizes)
        return placed, max((placed[v] + sizes[v] for v in placed), default=0)

    def _place(self, value: Instruction, placed: Mapping[Instruction, int], sizes: Mapping[Instruction, int]) -> int:
        """The lowest place that is free, or that of a value which this one is written over, if no third value is there."""
        there = [(placed[o], placed[o] + sizes[o], sizes[o] == sizes[value] and self._overwritten(value, o))
                 for o in placed if self._meet(o, value)]
        starts = {0, *(end for _, end, _ in there), *(low for low, _, exact in there if exact)}
        return min(start for start in starts if all(
            start + sizes[value] <= low or start >= end or (exact and start == low) for low, end, exact in there))

    def _meet(self, a: Instruction, b: Instruction) -> bool:
        """Whether two stored values are there at the same time."""
        return self.stage_of[a] <= self._last_stage(b) and self.stage_of[b] <= self._last_stage(a)

    def _overwritten(self, a: Instruction, b: Instruction) -> bool:
        """Whether one of two values may be written over the other, element for element."""
        return self._takes_over(a, b) or self._takes_over(b, a)

    def _takes_over(self, value: Instruction, other: Instruction) -> bool:
        """Whether a value may be written piece by piece over another, which is only added to something in its stage."""
        stage = self.stage_of[value]
        if self.stage_of[other] >= stage or self._last_stage(other) != stage or other.shape != value.shape:
            return False
        late = [user for user in other.users
                if self._is_join(user) or user in self.inside and self.stage_of.get(user) == stage]
        return all(user.opcode == "add" for user in late)

    def _last_stage(self, value: Instruction) -> int:
        """The last stage that reads a stored value."""
        if value is self.root:
            return len(self.stages)
        found = self.stage_of[value]
        for user in value.users:
            if self._is_join(user):
                found = max(found, self._last_stage(user))
            elif user in self.inside:
                found = max(found, self.stage_of[user])
        return found

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
        return value in self.parts(head) or any(self.feeds(user, head) for user in value.users
                                              if self.stage_of.get(user) == 0 and not self._is_join(user))

    def strip_rows(self, value: Instruction, head: Instruction, rows: int) -> int:
        """At most so many rows of a value take part in `rows` outputs of each phase of the one head."""
        height = self.sizes(value)[2]
        axes = self.phases(head, ROW)
        if self.stage_of[value] or not self.feeds(value, head):
            return min(height, rows * axes[0].step)
        cells = [cell.shift for axis in axes for cell in axis.cells] or [0]
        return min(height, (rows - 1) * axes[0].stride + max(cells) - min(cells) + 1)
