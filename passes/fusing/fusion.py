"""Form row programs: elementwise chains with the reductions and products that keep rows apart become one fusion.

Before:
  d = f32[128,768] dot(x, w), ..    b = f32[128,768] broadcast(bias), dimensions={1}    r = f32[128,768] add(d, b)
After:
  r = f32[128,768] fusion(x, w, bias), kind=kCustom, calls=rows.r, frontend_attributes={nxcc.rows="1"}

A region grows backwards from its root: a producer joins when all its users are inside and its rows are the region's
(see nxcc.ir.hlo.rowspace). What costs nothing, constants and broadcasts, is copied in. Softmax, layer norm, RMS norm,
the epilogue of a product and attention as a whole come out as cases of this one rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field

from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.builder import Builder, Names
from nxcc.ir.hlo.marks import ROWS
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.hlo.rowspace import COLUMN, UNIT, RowMap, is_column_parallel, is_elementwise, operand_maps, row_map, shown
from nxcc.ir.hlo.small_products import are_many_small
from nxcc.passes.cost import RowCapacity
from nxcc.passes.fusing.outlining import outline

SHORT_ROW = 512
"""Columns below which rows had better lie together."""

MEMBERS_MAX = 128
"""Computing instructions of a region, at most: where room is short, each one that joins is weighed with all that are there."""

FREE = frozenset(("broadcast", "reshape", "constant"))
"""Cost nothing inside a region: copied in for each region that reads them."""


@dataclass(frozen=True)
class Fusion:
    """Options: what the target can take. Fuses in the entry and in loop bodies and branches."""

    capacity: RowCapacity
    name: str = "fusion"

    def run(self, module: Module) -> bool:
        changed, names = False, Names(module)
        for computation in flow_of(module):
            changed |= _fuse(module, Builder(computation, names=names), self.capacity)
        return changed


def flow_of(module: Module) -> list[Computation]:
    """The entry, and what loops, conditionals and calls run; never a combiner or a region."""
    found = [module.entry]
    for computation in found:
        for instruction in computation.instructions:
            if instruction.opcode in ("while", "conditional", "call"):
                found.extend(c for c in instruction.called if c not in found)
    return found

MANY_ROWS = 1024
"""Rows of a product, at least, that becomes a region for the sake of a chain: fewer stand in lines."""

SCALING_MAX = 16
"""Instructions between a product and the sums that scale its rows, at most."""

SMALL_LEFT_BYTES = 1 << 14
"""Bytes of a left side, at most, that a region converts though it does so again for each piece of columns."""


def _fuse(module: Module, builder: Builder, capacity: RowCapacity) -> bool:
    computation = builder.computation
    order = computation.post_order()
    position = {instruction: index for index, instruction in enumerate(order)}
    able = {instruction for instruction in order if _computes(instruction, capacity)}
    regions = []
    for root in reversed(order):
        if root not in able or not root.users and root is not computation.root:
            continue
        region = _best_region(root, position, able, capacity)
        if region is not None:
            able.difference_update(region.members)  # `-=` with a view of keys would copy the whole set each time
            regions.append(region)
    for number, region in enumerate(reversed(regions)):
        _outline(module, computation, region, f"rows.{number}", builder)
    if regions:
        computation.sort()
    return bool(regions)


def _computes(instruction: Instruction, capacity: RowCapacity) -> bool:
    """Work that a region can hold; a sum over nothing is none."""
    if not instruction.shape.is_array or not instruction.shape.element_count or instruction.control_predecessors:
        return False
    fits = _FORMS.get(instruction.opcode, _elementwise_form)
    if not fits(instruction) or not all(operand.shape.element_count for operand in instruction.operands):
        return False
    return capacity.supported(instruction)


def _elementwise_form(instruction: Instruction) -> bool:
    return is_elementwise(instruction) and instruction.opcode != "copy"


def _reduce_form(instruction: Instruction) -> bool:
    """One array, a constant to start from, and rows that lie together: the last dimension is reduced."""
    if len(instruction.operands) != 2 or instruction.operands[1].opcode != "constant":
        return False
    dims, reduced = instruction.operands[0].shape.dims, instruction.attribute("dimensions")
    last = max((d for d, size in enumerate(dims) if size > 1), default=None)
    return last is None or last in reduced


def _dot_form(instruction: Instruction) -> bool:
    """Batch dimensions in order, one summed dimension, rows on the left, a matrix of two dimensions that is worth a pass."""
    batch, summed = instruction.attribute("rhs_batch_dims"), instruction.attribute("rhs_contracting_dims")
    ordered = instruction.attribute("lhs_batch_dims") == tuple(range(len(batch)))
    alike = instruction.operands[0].shape.dtype is instruction.operands[1].shape.dtype
    has_rows = instruction.operands[0].shape.rank > 1 and not are_many_small(instruction)
    return ordered and alike and has_rows and len(summed) == 1 and instruction.operands[1].shape.rank == len(batch) + 2


_FORMS = {"reduce": _reduce_form, "dot": _dot_form}


@dataclass()
class _Room:
    """What a region takes on the chip, kept as members join, so that most need not be weighed with all that are there.

    streams: whether columns do not depend on each other (see rowspace.is_column_parallel). cut, whole: bytes a partition, at
    most, with tiles cut along columns and with whole rows. outside: what members read that is not free. lefts: what products
    have on their left.
    """

    streams: bool = True
    cut: int = 0
    whole: int = 0
    outside: set[Instruction] = field(default_factory=set)
    lefts: set[Instruction] = field(default_factory=set)


@dataclass()
class _Region:
    """members: computing instructions, root first. maps: rows and columns of every value inside, free ones too.

    free: what is copied in because it costs nothing there and its operand's rows agree with all other readers'.
    closed: values that must come from outside: matrices, and left sides of products with one matrix for all rows. What makes
    such a left side works on whole rows of it; its own region, cut along columns, serves it better. hopeful: see RowCapacity.
    """

    root: Instruction
    rows: int
    hopeful: bool = False
    members: dict[Instruction, None] = field(default_factory=dict)
    maps: dict[Instruction, RowMap] = field(default_factory=dict)
    closed: set[Instruction] = field(default_factory=set)
    free: set[Instruction] = field(default_factory=set)
    room: _Room = field(default_factory=_Room)

    @property
    def weight(self) -> int:
        return len(self.members) + 8 * sum(1 for m in self.members if m.opcode in ("reduce", "dot"))

    @property
    def is_scattered(self) -> bool:
        """Whether rows are short and do not follow each other as one dimension: some value repeats along the last ones."""
        dims = self.root.shape.dims
        last = next((d for d in reversed(range(self.rows)) if dims[d] > 1), None)
        if last is None or math.prod(dims[self.rows:]) >= SHORT_ROW:
            return False
        rows = [set(marks) - {COLUMN, UNIT} for marks in self.maps.values() if COLUMN not in marks]
        return any(marks and last not in marks for marks in rows)


def _best_region(root: Instruction, position: dict[Instruction, int], able: set[Instruction],
                 capacity: RowCapacity) -> _Region | None:
    """The largest region over the possible numbers of row dimensions; None if nothing is gained."""
    rank = root.shape.rank
    regions = [_fitting(root, rows, position, able, capacity) for rows in _row_counts(root, rank)]
    best = max(regions, default=None, key=lambda r: (r.weight, not r.is_scattered, r.rows < rank, r.rows))
    if best is None or not best.members:
        return None
    return best if len(best.members) > 1 or _sums_short_rows(root) or follows_sums(root) else None


def _sums_short_rows(root: Instruction) -> bool:
    """Whether an instruction is a reduction of which a partition holds several rows."""
    return root.opcode == "reduce" and root.operands[0].shape.element_count < SHORT_ROW * root.shape.element_count


def follows_sums(dot: Instruction) -> bool:
    """Whether a product of many rows multiplies rows that sums over them scale, as a norm does: alone a product like any
    other, it may follow the norm row by row (`chain_regions.py`)."""
    if dot.opcode != "dot" or dot.attribute("lhs_batch_dims") or math.prod(dot.shape.dims[:-1]) < MANY_ROWS:
        return False
    stack, seen = [shown(dot.operands[0])], set[Instruction]()
    while stack and len(seen) < SCALING_MAX:
        current = stack.pop()
        if current.opcode == "reduce" and current.shape.element_count * current.operands[0].shape.dims[-1] \
                == dot.operands[0].shape.element_count:
            return True
        if current not in seen and (is_elementwise(current) or current.opcode in FREE):
            seen.add(current)
            stack.extend(current.operands)
    return False


def _row_counts(root: Instruction, rank: int) -> Iterator[int]:
    if root.opcode == "reduce":
        yield rank
        return
    if root.opcode == "dot":
        yield rank - 1
        return
    yield from range(max(rank - 1, 0), -1 if rank < 2 else 0, -1)
    if rank:
        yield rank


def _fitting(root: Instruction, rows: int, position: dict[Instruction, int], able: set[Instruction],
             capacity: RowCapacity) -> _Region:
    """A region grown in the hope of a product that makes its long rows; if that did not come, grown without."""
    region = _grow(root, rows, position, able, capacity, True)
    if any(m.opcode == "dot" and m.attribute("lhs_batch_dims") for m in region.members):
        streams = is_column_parallel(region.members, region.maps, [root])
        if not capacity.fits(_widths(region.members, region.maps), streams):
            return _grow(root, rows, position, able, capacity, False)
    return region


def _grow(root: Instruction, rows: int, position: dict[Instruction, int], able: set[Instruction], capacity: RowCapacity,
          hopeful: bool) -> _Region:
    """able: what a region can compute and no other region has taken."""
    region = _Region(root, rows, hopeful)
    region.maps[root] = row_map(root, rows)
    frontier = {root}
    while frontier:
        candidate = max(frontier, key=position.__getitem__)
        frontier.discard(candidate)
        if not _join(region, candidate, able, capacity):
            continue
        for operand in candidate.operands:
            if operand in region.maps and operand not in region.members:
                frontier.add(operand)
    return region


def _join(region: _Region, candidate: Instruction, able: set[Instruction], capacity: RowCapacity) -> bool:
    """Add a candidate and the maps of its operands, if all fit together."""
    free = candidate.opcode in FREE
    if free and candidate in region.closed:
        return False
    if not free and (len(region.members) >= MEMBERS_MAX or candidate not in able or not _enclosed(candidate, region)):
        return False
    maps = operand_maps(candidate, region.maps[candidate])
    if maps is None or not _agree(candidate, maps, region) or _repeats(candidate, region):
        return False
    if free:
        region.free.add(candidate)
    else:
        room = _with(candidate, region, capacity)
        if len(room.outside) > capacity.max_inputs or not _fits(candidate, room, region, capacity):
            return False
        region.members[candidate] = None
        region.room = room
    region.maps.update((o, f) for o, f in zip(candidate.operands, maps, strict=True) if f is not None)
    if candidate.opcode == "dot":
        region.closed.add(candidate.operands[1])
        if not candidate.attribute("lhs_batch_dims") and not _is_small_conversion(candidate, able):
            region.closed.add(shown(candidate.operands[0]))
    return True


def _with(candidate: Instruction, region: _Region, capacity: RowCapacity) -> _Room:
    """The region's room once a candidate is a member. A producer joins after all its readers, so none of what it reads is a
    member yet."""
    room, marks = region.room, region.maps[candidate]
    cut, whole = capacity.at_most(candidate, columns(candidate, marks))
    outside = room.outside | {o for o in candidate.operands if o.opcode not in FREE}
    outside.discard(candidate)
    lefts = room.lefts | {shown(candidate.operands[0])} if candidate.opcode == "dot" else room.lefts
    streams = room.streams and candidate not in lefts and is_column_parallel((candidate,), region.maps, [region.root])
    return _Room(streams, room.cut + cut, room.whole + whole, outside, lefts)


def _fits(candidate: Instruction, room: _Room, region: _Region, capacity: RowCapacity) -> bool:
    if capacity.has_room(room.cut if room.streams else room.whole):
        return True
    return capacity.fits(_widths({**region.members, candidate: None}, region.maps), room.streams, region.hopeful)


def _is_small_conversion(dot: Instruction, able: set[Instruction]) -> bool:
    """Whether a left side of few rows is nothing but a conversion of what no region makes: alone it would be a region that
    moves next to nothing, and the matrix would come behind it."""
    left = dot.operands[0]
    if left.opcode != "convert" or not left.shape.dtype.is_float or left.operands[0] in able:
        return False
    return left.shape.byte_size <= SMALL_LEFT_BYTES


def _enclosed(candidate: Instruction, region: _Region) -> bool:
    """True if nobody outside the region reads the candidate."""
    if candidate in region.closed:
        return False
    if candidate is region.root:
        return True
    if candidate.parent is not None and candidate.parent.root is candidate:
        return False
    return all(u in region.members or _copied(u, region) for u in candidate.users)


def _agree(candidate: Instruction, maps: list[RowMap | None], region: _Region) -> bool:
    """True if the operands' rows are what the region already knows of them, and matrices come from outside."""
    if candidate.opcode == "dot" and (candidate.operands[1] in region.maps or not _batch_first(candidate, region)):
        return False
    for operand, found in zip(candidate.operands, maps, strict=True):
        if found is not None and region.maps.get(operand, found) != found:
            return False
    return True


def _repeats(candidate: Instruction, region: _Region) -> bool:
    """Whether a sum or product is the same for many rows, and to compute it for each is more work than the root's."""
    if candidate.opcode not in _FORMS:
        return False
    marks = region.maps[candidate]
    times = math.prod(size for d, size in enumerate(region.root.shape.dims[:region.rows]) if d not in marks)
    return times > 1 and times * candidate.operands[0].shape.element_count > region.root.shape.element_count


def _copied(user: Instruction, region: _Region) -> bool:
    """A free user whose own users are all inside: it is copied in and vanishes outside."""
    stack = [user]
    while stack:
        current = stack.pop()
        if current in region.members:
            continue
        if current.opcode not in FREE or current not in region.maps or not current.users:
            return False
        stack.extend(current.users)
    return True


def _batch_first(dot: Instruction, region: _Region) -> bool:
    """The rows that select a matrix must be the region's first row dimensions, in order, of which there are no fewer."""
    batch = len(dot.attribute("lhs_batch_dims"))
    marks = region.maps[dot][:batch]
    sizes = dot.shape.dims[:batch]
    return batch <= region.rows and all(
        mark == d or size == 1 and mark < 0 for d, (mark, size) in enumerate(zip(marks, sizes, strict=True)))


def _widths(members: dict[Instruction, None], maps: dict[Instruction, RowMap]) -> list[tuple[Instruction, int]]:
    """Columns of each value that takes a tile."""
    return [(m, columns(m, maps[m])) for m in members]


def columns(instruction: Instruction, marks: RowMap) -> int:
    """Elements of one row of a value."""
    total = 1
    for size, mark in zip(instruction.shape.dims, marks, strict=True):
        if mark == COLUMN:
            total *= size
    return total


def _outline(module: Module, computation: Computation, region: _Region, name: str, builder: Builder) -> None:
    """Move the members into a computation of their own, called by a fusion."""
    def is_inside(instruction: Instruction) -> bool:
        return instruction in region.members or instruction.opcode in FREE and _free_inside(instruction, region)

    outline(module, computation, region.root, is_inside, name, {ROWS: str(region.rows)}, builder)


def _free_inside(instruction: Instruction, region: _Region) -> bool:
    """Free instructions are copied in where their rows are known, and constants that rules read as they are."""
    if instruction.opcode == "constant":
        return bool(instruction.attributes["literal"].is_splat)
    return instruction in region.free
