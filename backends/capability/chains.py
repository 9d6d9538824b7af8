"""Whether row programs fit on the chip as a chain: answers the pass that forms chains (see nxcc.passes.cost.RowCapacity)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import shown

LINE_TILES = 4
"""Tiles of rows of a line at most: a chain whose matrices come in a ring while all its rows are on the chip."""

LINE_SHARE = 0.75
"""Part of SBUF that a line takes, if that is enough, so that another region fits beside it."""

HEAD_SHARE = 0.5
"""As LINE_SHARE, of a line that attention belongs to: the next one fits beside it and loads its matrices meanwhile."""

HEAD_RING_BYTES = 53248
"""As RING_BYTES, of a line that attention belongs to: what comes while nothing is given back, before the first wide product."""

HEAD_TILES = 2
"""As LINE_TILES, of a line that attention belongs to."""

HEAD_RUN_BYTES = 112
"""Bytes of a partition for each key, of the values of attention's runs that overlap."""

RING_BYTES = 40960
"""Bytes of a partition in which the matrices of a line follow each other, at least."""

CHUNK_BYTES = 9216
"""Bytes of a partition of a matrix that come together where matrices are under way: the first are used before the last come."""

SLACK_BYTES = 1536
"""Bytes of a partition in a line for statistics of rows and alignment."""

PIECE_COLUMNS = 512
"""Columns of a matrix that come together where columns do not depend on each other."""

LENT_BYTES = 2048
"""Bytes of a partition for temporaries of elementwise work in a line of one tile of rows, where most of them lie in PSUM; for
more, columns are cut into pieces."""

ASIDE_BYTES = 4096
"""Bytes of a partition for what is small in a chain: statistics of rows, rows of ones, alignment."""

TIGHT_BYTES = 1024 + SLACK_BYTES
"""As ASIDE_BYTES, where all else is counted exactly."""


def chain_fits(regions: Sequence[Instruction], rows: int, target: Target) -> bool:
    """Operands, results and temporaries of all regions; all that is the same for all rows or, in a line, enough of it to have
    some on the way."""
    if is_line(regions, rows, target):
        return True
    needs = [_chain_need(region, regions, target.partitions) for region in regions]
    tiles = sum(need.tiles for need in needs) + max(need.temporaries for need in needs)
    return rows > target.partitions and tiles + sum(need.stays for need in needs) + ASIDE_BYTES <= target.sbuf.usable_bytes


def is_line(regions: Sequence[Instruction], rows: int, target: Target) -> bool:
    """Whether all rows of a chain fit on the chip while its matrices pass, those of a region together if there are several
    tiles of rows."""
    return line_share(regions, rows, target) is not None


def line_share(regions: Sequence[Instruction], rows: int, target: Target) -> float | None:
    """The part of SBUF that a chain takes as a line: so much that another region fits beside it, or all; None if it is none."""
    share = _line_bytes(regions, rows, RING_BYTES, target) if rows <= LINE_TILES * target.partitions else math.inf
    return next((bound for bound in (LINE_SHARE, 1.0) if share <= bound), None)


def head_share(head: Instruction, regions: Sequence[Instruction], rows: int, target: Target) -> float | None:
    """The part of SBUF that attention takes with the line that multiplies its result: so much that the next such line fits
    beside it, or all; None if that is not enough, or if each row has a mask of its own, which `head_bytes` does not count: a
    decoder with one sequence took 1.6 times as long with such a head as without."""
    body = head.called[0]
    matrices = [p.shape.dims for p in body.parameters if p.shape.rank > 1]
    if any(dims[-2] > 1 and math.prod(dims[:-2]) == 1 for dims in matrices):
        return None
    scratch = head_bytes(body.parameters, body.root, rows, target.partitions) + body.root.shape.byte_size // target.partitions
    share = _line_bytes(regions, rows, HEAD_RING_BYTES, target, scratch)
    fits = (bound for bound in (HEAD_SHARE, 1.0) if share <= bound)
    return next(fits, None) if rows <= HEAD_TILES * target.partitions else None


def _line_bytes(regions: Sequence[Instruction], rows: int, ring: int, target: Target, scratch: int = 0) -> float:
    """Part of SBUF that a line needs. ring: bytes of a partition for matrices at least, or those of one region where several
    tiles of rows use them; scratch: bytes that are taken before anything is multiplied."""
    needs = _stages([_chain_need(region, regions, target.partitions) for region in regions])
    count = -(-rows // target.partitions)
    if count > 1:
        ring = max(ring, max(need.stays for need in needs) + CHUNK_BYTES)
    temporaries = max(need.temporaries for need in needs)
    tiles = count * _most_at_once(needs) + (temporaries // 2 + LENT_BYTES if count == 1 else temporaries)
    total = max(tiles, scratch) + ring + ASIDE_BYTES
    if count > 1 and not scratch:
        pieces = max(need.stays + max(need.piece, CHUNK_BYTES) for need in needs)
        total = min(total, count * _most_at_once(needs, exact=True) + temporaries + max(RING_BYTES, pieces) + TIGHT_BYTES)
    return total / target.sbuf.usable_bytes


def head_bytes(operands: Iterable[Instruction], result: Instruction, rows: int, lanes: int) -> int:
    """Bytes of a partition that attention takes: queries, keys and values as they lie and turned, and a few runs."""
    count = -(-rows // lanes)
    whole = sum(o.shape.byte_size // rows for o in operands if o.shape.rank == result.shape.rank)
    return 2 * count * whole + HEAD_RUN_BYTES * rows


def _stages(needs: Sequence[_ChainNeed]) -> list[_ChainNeed]:
    """What regions of a line need, those that multiply nothing together with the one before them."""
    stages: list[list[_ChainNeed]] = []
    stage_of = []
    for need in needs:
        if need.multiplies or not stages:
            stages.append([])
        stages[-1].append(need)
        stage_of.append(len(stages) - 1)
    stage_of.append(len(stages))
    return [_ChainNeed(sum(n.stays for n in s), sum(n.loads for n in s), sum(n.lefts for n in s), sum(n.results for n in s),
                       max(n.temporaries for n in s), max(stage_of[n.last] for n in s), True, max(n.piece for n in s),
                       tuple((size, stage_of[last]) for n in s for size, last in n.each)) for s in stages]


def _most_at_once(needs: Sequence[_ChainNeed], exact: bool = False) -> int:
    """Bytes of a partition for a tile of rows in a line: operands are there from the start, results until they are read.
    exact: each by itself, not until the last of a region's is read."""
    at_once = []
    for number, need in enumerate(needs):
        loaded = sum(later.loads for later in needs[number:])
        kept = sum(n.results for n in needs[:number + 1] if n.last >= number)
        if exact:
            kept = sum(size for n in needs[:number + 1] for size, last in n.each if last >= number)
        at_once.append(loaded + need.lefts + kept)
    return max(at_once)


@dataclass(frozen=True, slots=True)
class _ChainNeed:
    """Bytes of a partition that a region of a chain takes. stays: what is the same for all rows. Of a tile of rows, loads: what
    comes from outside; lefts: left sides turned; results, which are read until the region of number `last`. Half of the
    temporaries are values, half are of elementwise work. piece: of a matrix that comes in pieces of columns, one of them;
    each: of each result, its bytes and until which region it is read."""

    stays: int
    loads: int
    lefts: int
    results: int
    temporaries: int
    last: int
    multiplies: bool
    piece: int
    each: tuple[tuple[int, int], ...]

    @property
    def tiles(self) -> int:
        return self.loads + self.lefts + self.results


def _chain_need(region: Instruction, regions: Sequence[Instruction], lanes: int) -> _ChainNeed:
    """As nxcc.backends.lowering.rows.chain_member takes them, nearly: left sides turned, and if they are loaded as they lie;
    operands from outside, those of all rows repeated; results; temporaries as wide as a result.

    A result that is only multiplied from the left comes turned, and what is added to its columns lies along partitions.
    """
    body = region.called[0]
    order = body.post_order()
    dots = [i for i in order if i.opcode == "dot"]
    stays = sum(-(-dot.operands[1].shape.byte_size // lanes) for dot in dots)
    lefts, sides = {shown(dot.operands[0]) for dot in dots}, {dot.operands[1] for dot in dots}
    roots = body.root.operands if body.root.opcode == "tuple" else (body.root,)
    is_parallel = all(i.opcode != "reduce" for i in order)
    comes_turned = _comes_turned(region, regions)
    loads = turned = 0
    for parameter, operand in zip(body.parameters, region.operands, strict=True):
        if parameter in sides or not parameter.shape.rank:
            continue
        width = parameter.shape.dims[-1] * parameter.shape.dtype.byte_size
        if parameter.shape.rank == 1:
            stays += width // lanes if comes_turned else width
        elif _made_by(operand) not in regions:
            loads += width
        if parameter in lefts and not (_made_by(operand) in regions and _comes_turned(_made_by(operand), regions)):
            turned += width
    results = sum(root.shape.dims[-1] * root.shape.dtype.byte_size for root in roots)
    wide = [root.shape.dims[-1] * 4 for root in roots]
    readers = [number for number, other in enumerate(regions) if region in map(_made_by, other.operands)]
    last = max(readers, default=len(regions))
    piece = _piece(region, regions, dots, lanes) if is_parallel else 0
    each = tuple((root.shape.dims[-1] * root.shape.dtype.byte_size, _last_reader(region, place, regions))
                 for place, root in enumerate(roots))
    return _ChainNeed(stays, loads, turned, results, 0 if is_parallel else 4 * max(wide), last, bool(dots), piece, each)


def _piece(region: Instruction, regions: Sequence[Instruction], dots: Sequence[Instruction], lanes: int) -> int:
    """Bytes of a partition of a piece of a matrix's columns; 0 where others only multiply what the region makes."""
    readers = [(other.called[0].parameters[number]) for other in regions for number, operand in enumerate(other.operands)
               if _made_by(operand) is region]
    if readers and all(user.opcode == "dot" for parameter in readers for user in parameter.users):
        return 0
    matrices = [dot.operands[1].shape for dot in dots]
    return max((-(-m.dims[0] // lanes) * min(PIECE_COLUMNS, m.dims[-1]) * m.dtype.byte_size for m in matrices), default=0)


def _last_reader(region: Instruction, place: int, regions: Sequence[Instruction]) -> int:
    """The number of the last region that reads a result of a region; the one behind all if that is read outside."""
    elements = [user for user in region.users if user.opcode == "get-tuple-element" and user.attribute("index") == place] \
        if not region.shape.is_array else [region]
    stack = [user for element in elements for user in element.users]
    last = regions.index(region)
    while stack:
        user = stack.pop()
        if user.opcode in ("reshape", "get-tuple-element"):
            stack.extend(user.users)
        last = max(last, regions.index(user) if user in regions else len(regions))
    return last


def _comes_turned(region: Instruction, regions: Sequence[Instruction]) -> bool:
    body = region.called[0]
    opcodes = [i.opcode for i in body.post_order()]
    return opcodes.count("dot") == 1 and "reduce" not in opcodes and body.root.opcode != "tuple" and region is not regions[-1]


def _made_by(value: Instruction) -> Instruction:
    while value.opcode in ("reshape", "get-tuple-element"):
        value = value.operands[0]
    return value
