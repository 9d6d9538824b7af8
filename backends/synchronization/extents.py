"""The bytes that a site touches."""

from __future__ import annotations

from nxcc.backends.isa.program import DMA_PARTITION_STRIDE, Memory
from nxcc.backends.synchronization.dependence import Block
from nxcc.backends.synchronization.plan import Site
from nxcc.backends.tile.expressions import Expr, Symbol
from nxcc.backends.tile.program import Access, Op, ScalarLoad, View
from nxcc.ir.facts import dataclass

EVERYWHERE = 1 << 62


@dataclass(frozen=True, slots=True)
class Extent:
    """Bytes an operand may touch: key separates memories (and HBM buffers), partitions and bytes are half-open ranges over all
    iterations; block: the bytes of one iteration, where more than the range is known."""

    key: object
    first_partition: int
    last_partition: int
    low: int
    high: int
    writes: bool
    block: Block | None = None


def extents_of(site: Site, psum_bank_bytes: int) -> list[Extent]:
    statement = site.statement
    if isinstance(statement, ScalarLoad):
        return [_view_extent(statement.source, False)]
    found = []
    for name, operand in statement.operands.items():
        access = statement.spec.operand(name).access
        for writes in (True,) if access == "w" else (False,) if access == "r" else (True, False):
            if isinstance(operand, View):
                found.append(_view_extent(operand, writes, indirect=_is_indirect(statement, name)))
            else:
                found.append(_access_extent(operand, writes, psum_bank_bytes))
    if statement.awaits is not None:
        found.append(_access_extent(statement.awaits, False, psum_bank_bytes))
    return found


def operands_of(statement: Op | ScalarLoad) -> list[Access | View]:
    """All that a statement reads or writes."""
    return [statement.source] if isinstance(statement, ScalarLoad) else list(statement.operands.values())


def span(operand: Access | View) -> tuple[int, int]:
    """Bytes of a partition of SBUF that an operand may touch: the first, and the one behind the last."""
    found = _sbuf_extent(operand, False) if isinstance(operand, View) else _access_extent(operand, False, 1)
    return found.low, found.high


def addressed(site: Site) -> frozenset[Symbol]:
    """Arguments in the addresses of the HBM views that a site reads or writes."""
    views = [o for o in operands_of(site.statement) if isinstance(o, View) and o.memory is Memory.HBM]
    return frozenset(symbol for view in views for symbol, _ in view.address.terms if symbol.kind == "argument")


def _is_indirect(op: Op, name: str) -> bool:
    """An index vector decides which rows a gather reads or a scatter writes: the whole buffer may be touched."""
    return "indices" in op.operands and name == ("source" if op.spec.name == "dma_gather" else "destination")


def _access_extent(access: Access, writes: bool, psum_bank_bytes: int) -> Extent:
    size = access.dtype.byte_size
    block: Block | None = Block(access.offset, tuple((stride * size, n) for stride, n in access.dims), size)
    assert block is not None
    low, high = block.bounds()
    if access.memory is Memory.PSUM:
        low, high = low // psum_bank_bytes * psum_bank_bytes, -(-high // psum_bank_bytes) * psum_bank_bytes
        block = _banks(block, psum_bank_bytes)
    return Extent(access.memory, access.partition, access.partition + access.partitions, low, high, writes, block)


def _banks(block: Block, bank: int) -> Block | None:
    """The whole banks that a block of PSUM lies in, where loops step from bank to bank; others may step within them."""
    outer = tuple(term for term in block.address.terms if term[1] % bank == 0)
    if not outer:
        return None
    inner = tuple(term for term in block.address.terms if term[1] % bank)
    low, high = Block(Expr(block.address.constant, inner), block.dims, block.bytes).bounds()
    first = low // bank * bank
    return Block(Expr(first, outer), (), -(-high // bank) * bank - first)


def _view_extent(view: View, writes: bool, indirect: bool = False) -> Extent:
    """SBUF as a DMA sees it is split into partitions and bytes; HBM lies in the buffer of its argument."""
    if view.memory is Memory.SBUF:
        return _sbuf_extent(view, writes)
    base = tuple(s for s, _ in view.address.terms if s.kind == "argument")
    if indirect:
        return Extent(base, 0, 1, -EVERYWHERE, EVERYWHERE, writes)
    rest = Expr(view.address.constant, tuple((s, c) for s, c in view.address.terms if s.kind != "argument"))
    block = Block(rest, view.dims, view.dtype.byte_size)
    return Extent(base, 0, 1, *block.bounds(), writes, block)


def _sbuf_extent(view: View, writes: bool) -> Extent:
    partition, offset = divmod(view.address.constant, DMA_PARTITION_STRIDE)
    steps = [divmod(stride, DMA_PARTITION_STRIDE) for stride, _ in view.dims]
    last = partition + sum(rows * (size - 1) for (rows, _), (_, size) in zip(steps, view.dims, strict=True))
    block = Block(Expr(offset, view.address.terms),
                  tuple((bytes_, size) for (_, bytes_), (_, size) in zip(steps, view.dims, strict=True)), view.dtype.byte_size)
    return Extent(Memory.SBUF, partition, last + 1, *block.bounds(), writes, block)
