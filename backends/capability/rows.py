"""What a row program may hold on a target: answers the fusion pass (see nxcc.passes.cost.RowCapacity)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nxcc.backends.capability.chains import chain_fits, head_share
from nxcc.backends.capability.support import unsupported
from nxcc.backends.lowering.pointwise.formulas import TEMPORARIES, emits
from nxcc.backends.lowering.reduction import combiner
from nxcc.backends.lowering.rows.passes import ROWS_MIN as PASS_ROWS_MIN
from nxcc.backends.lowering.rows.passes import cuts, is_long
from nxcc.backends.lowering.rows.wide_course import ROWS_MIN, STAGES, WIDE, kept_bytes
from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

SHARE = 0.8
"""Part of SBUF that a region's values may take; the rest is for matrices that stream by and temporaries."""

MIN_STREAM_COLUMNS = 256
"""Columns of the narrowest tile that a region with independent columns should be cut into."""

STAYING_SHARE = 0.6
"""Part of SBUF that the matrices of a region may take which stay for all rows, while columns are cut."""

PASSES_BYTES = 40960
"""Bytes a partition that long rows need beside matrices and operands where their values are not kept."""

PASSES_MAX = 4
"""Times that long rows are read, at most."""

PASS_VALUES_MAX = 24
"""Long values of a region whose rows are passed over in pieces, at most."""

STREAM_BYTES = 16384
"""Bytes a partition for the stationary and moving tiles of a product, at least."""


@dataclass(frozen=True)
class TargetRowCapacity:
    """Row programs on one target. matrix_bytes: of what several products of a region multiply by, at most; 0: any."""

    target: Target
    max_inputs: int = 24
    matrix_bytes: int = 0

    def supported(self, instruction: Instruction) -> bool:
        if instruction.opcode == "reduce" and combiner(instruction.called[0]) is None:
            return False
        if instruction.opcode == "dot" and self._streams(instruction):
            return False
        if instruction.opcode == "scan":
            return unsupported(instruction, self.target) is None
        if instruction.opcode in ("dot", "reduce"):
            return unsupported(instruction, self.target) is None and instruction.shape.dtype.is_float
        return instruction.opcode in emits() and unsupported(instruction, self.target) is None

    def _streams(self, *dots: Instruction) -> bool:
        """Whether the matrices are too large to stay while many rows go by: a product of its own has larger blocks."""
        return sum(map(self._staying_bytes, dots)) > STAYING_SHARE * self.target.sbuf.usable_bytes

    def _staying_bytes(self, dot: Instruction) -> int:
        """Bytes a partition of a matrix that several tiles of rows are multiplied with, where reading it again for each of
        them moves more than storing the product's result and reading that back; 0 for others."""
        left, right = (operand.shape for operand in dot.operands)
        depth = math.prod(left.dims[d] for d in dot.attribute("lhs_contracting_dims"))
        lanes, rows = self.target.partitions, left.element_count // max(1, depth)
        again = (-(-rows // lanes) - 1) * depth * right.dtype.byte_size
        if dot.attribute("lhs_batch_dims") or again <= 2 * rows * dot.shape.dtype.byte_size:
            return 0
        columns = right.element_count // max(1, depth)
        found: int = -(-depth // lanes) * columns * right.dtype.byte_size
        return found

    def fits(self, widths: list[tuple[Instruction, int]], streams: bool, hopeful: bool = False) -> bool:
        """Peak of the live tiles when the members run in order, each with its operands and temporaries, which are cut into
        pieces of the columns. Elementwise work is written over an operand that is read no more.

        Where columns stream, a tile may be as narrow as MIN_STREAM_COLUMNS; left sides of products still lie whole. Where they
        do not, a row is one dimension of an access pattern.
        """
        members = dict(widths)
        if not self.holds([member for member in members if member.opcode == "dot"]):
            return False
        if not streams and (self._fits_in_stages(members, hopeful) or self._fits_in_passes(members)):
            return True
        if streams and self._streams(*(member for member in members if member.opcode == "dot")):
            return False
        narrow = {i: min(width, MIN_STREAM_COLUMNS) if streams else width for i, width in members.items()}
        last: dict[Instruction, Instruction] = {}
        for instruction in members:
            for operand in instruction.operands:
                last.setdefault(operand, instruction)
        live, peak, depths = 0, 0, 0
        for instruction, width in reversed(narrow.items()):
            live += width * 4
            extra = TEMPORARIES.get(instruction.opcode, 0) * min(width, MIN_STREAM_COLUMNS) * 4
            dying = [o for o in dict.fromkeys(instruction.operands) if o in members and last[o] is instruction]
            if instruction.opcode == "dot":
                depth = instruction.operands[0].shape.dims[instruction.attribute("lhs_contracting_dims")[0]]
                in_pieces = bool(instruction.attribute("lhs_batch_dims")) and depth >= WIDE
                depths += depth * 8 if streams and not (in_pieces and hopeful) else 0
                extra += STREAM_BYTES + (0 if streams or in_pieces else depth * 8)
            elif any(narrow[operand] == width for operand in dying):
                extra -= width * 4
            peak = max(peak, live + extra)
            live -= sum(narrow[operand] * 4 for operand in dying)
        inputs = {o: _input_columns(o, m, width) for m, width in members.items() for o in m.operands
                  if o not in members and o.shape.rank}
        if not streams and max(*members.values(), *inputs.values(), 0, 0) > self.target.pattern.size_max:
            return False
        loaded = sum(4 * min(max(columns, 1), MIN_STREAM_COLUMNS if streams else columns) for columns in inputs.values())
        return peak + loaded + depths <= SHARE * self.target.sbuf.usable_bytes

    def at_most(self, member: Instruction, columns: int) -> tuple[int, int]:
        """An upper bound of what `fits` counts: each value is there from first to last. Products have rules of their own."""
        if member.opcode in ("dot", "scan"):
            return self.target.sbuf.usable_bytes, self.target.sbuf.usable_bytes
        widths = [columns, *(max(1, _input_columns(o, member, columns)) for o in member.operands if o.shape.rank)]
        pieces = [min(width, MIN_STREAM_COLUMNS) for width in widths]
        return sum(pieces) * 4, sum(widths) * 4

    def has_room(self, size: int) -> bool:
        return size + max(TEMPORARIES.values()) * MIN_STREAM_COLUMNS * 4 <= SHARE * self.target.sbuf.usable_bytes

    def holds(self, products: Sequence[Instruction]) -> bool:
        matrices = [product.operands[1].shape.byte_size for product in products if not product.attribute("lhs_batch_dims")]
        return not self.matrix_bytes or len(matrices) < 2 or sum(matrices) <= self.matrix_bytes

    def chains(self, regions: Sequence[Instruction], rows: int) -> bool:
        return chain_fits(regions, rows, self.target)

    def heads(self, head: Instruction, regions: Sequence[Instruction], rows: int) -> bool:
        return head_share(head, regions, rows, self.target) is not None

    def _fits_in_stages(self, members: dict[Instruction, int], hopeful: bool) -> bool:
        """Whether the schedule for long rows (lowering.rows.wide) has room: a few tiles of rows, each of its long values once,
        and all matrices; or, where values are made again for each stage, the matrices alone."""
        lanes, width = self.target.partitions, max(members.values())
        dots = [m for m in members if m.opcode == "dot"]
        is_open = hopeful and any(_matrix(dot)[0] == width for dot in dots)
        if width < WIDE or not is_open and all(members[dot] != width for dot in dots):
            return False
        if any(not dot.attribute("lhs_batch_dims") or dot.shape.dims[-2] < ROWS_MIN for dot in dots):
            return False
        matrices = 0
        for dot in dots:
            depth, columns = _matrix(dot)
            matrices += -(-depth // lanes) * columns * dot.operands[1].shape.dtype.byte_size
        rows = {o: _input_columns(o, m, columns) for m, columns in members.items() for o in m.operands
                if o not in members and o.shape.rank and m.opcode != "dot"}
        results = int(next(iter(members.values())) == width)
        long = [value for value, columns in rows.items() if columns == width]
        usable = self.target.sbuf.usable_bytes
        again = 0 if is_open else sum((STAGES if _moves(value) else 1) * value.shape.dtype.byte_size * width for value in long)
        return kept_bytes(width, len(long) + results, matrices) <= usable or \
            not results and matrices + again + PASSES_BYTES <= usable

    def _fits_in_passes(self, members: dict[Instruction, int]) -> bool:
        """Whether the schedule for long rows without products (lowering.rows.passes) takes them: few passes, and a piece of
        each value."""
        root, width = next(iter(members)), max(members.values())
        if not is_long(width, self.target) or root.shape.element_count // members[root] < PASS_ROWS_MIN:
            return False
        reduces = [m for m in members if m.opcode == "reduce"]
        summed = {m.operands[0].shape.element_count // m.shape.element_count for m in reduces}
        if not {*members.values(), *summed} <= {1, width} or not all(map(cuts, reduces)):
            return False
        levels: dict[Instruction, int] = {}
        for member in reversed(members):
            level = max((levels.get(o, 0) for o in member.operands), default=0)
            if member.opcode in ("dot", "scan"):
                return False
            levels[member] = level + (member.opcode == "reduce")
        inputs = {o for m, columns in members.items() for o in m.operands if o not in members and columns == width}
        values = len(inputs) + sum(columns == width for columns in members.values())
        return max(levels.values()) < PASSES_MAX and values <= PASS_VALUES_MAX


def _moves(value: Instruction) -> bool:
    """Whether rows have elements of their own of a value."""
    return value.opcode != "broadcast" or value.shape.rank - 2 in value.attribute("dimensions")


def _matrix(dot: Instruction) -> tuple[int, int]:
    """Depth and columns of the right side of a product in normal form."""
    dims, (summed,) = dot.operands[1].shape.dims, dot.attribute("rhs_contracting_dims")
    batch = dot.attribute("rhs_batch_dims")
    return dims[summed], math.prod(size for d, size in enumerate(dims) if d != summed and d not in batch)


def _input_columns(value: Instruction, reader: Instruction, width: int) -> int:
    """Columns of a value from outside that a member with so many columns reads: a reduction's are those that it reduces, and
    what is repeated along the columns has one."""
    if value.opcode == "broadcast" and value.shape.rank - 1 not in value.attribute("dimensions"):
        return 1
    if reader.opcode == "reduce" and value is reader.operands[0]:
        return width * value.shape.element_count // max(1, reader.shape.element_count)
    return value.shape.dims[-1]
