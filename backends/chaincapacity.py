"""Whether row programs fit on the chip as a chain: answers the pass that forms chains (see nxcc.passes.cost.RowCapacity)."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.target import Target
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.rowspace import shown

LINE_SHARE = 0.75
"""Part of SBUF that a chain with a single tile of rows takes at most, so that another region fits beside it."""

RING_BYTES = 40960
"""Bytes of a partition in which the matrices of a chain with a single tile of rows follow each other, at least."""


ASIDE_BYTES = 4096
"""Bytes of a partition for what is small in a chain of several tiles: statistics of rows, rows of ones, alignment."""


def chain_fits(regions: Sequence[Instruction], rows: int, target: Target) -> bool:
    """Operands, results and temporaries of all regions; all that is the same for all rows or, for a single tile of them, enough
    of it to have some on the way."""
    needs = [_chain_need(region, regions, target.partitions) for region in regions]
    tiles = sum(need.tiles for need in needs) + max(need.temporaries for need in needs)
    if rows <= target.partitions:
        return tiles + RING_BYTES <= LINE_SHARE * target.sbuf.usable_bytes
    return tiles + sum(need.stays for need in needs) + ASIDE_BYTES <= target.sbuf.usable_bytes


@dataclass(frozen=True, slots=True)
class _ChainNeed:
    """Bytes of a partition that a region of a chain takes. stays: what is the same for all rows."""

    stays: int
    tiles: int
    temporaries: int


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
    comes_turned = is_parallel and len(dots) == len(roots) == 1 and region is not regions[-1]
    tiles = 0
    for parameter, operand in zip(body.parameters, region.operands, strict=True):
        if parameter in sides or not parameter.shape.rank:
            continue
        width = parameter.shape.dims[-1] * parameter.shape.dtype.byte_size
        if parameter.shape.rank == 1:
            stays += width // lanes if comes_turned else width
        elif _made_by(operand) not in regions:
            tiles += width
        if parameter in lefts:
            tiles += width
    results = sum(root.shape.dims[-1] * root.shape.dtype.byte_size for root in roots)
    wide = [root.shape.dims[-1] * 4 for root in roots]
    return _ChainNeed(stays, tiles + results, 0 if is_parallel else 4 * max(wide))


def _made_by(value: Instruction) -> Instruction:
    while value.opcode in ("reshape", "get-tuple-element"):
        value = value.operands[0]
    return value
