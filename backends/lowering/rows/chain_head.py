"""Attention at the head of a line: its result is the tiles of rows that the first member multiplies.

The line's matrices are under way meanwhile, past those of the line before it, so that transfers need not wait for attention.
Where the line has the whole chip, and nothing of it can come before the line before is done, they come behind what attention
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nxcc.backends.capability.chains import HEAD_RUN_BYTES, HEAD_SHARE, head_bytes
from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.rows.batches import RowBatches
from nxcc.backends.lowering.rows.chain_member import Handed, Member
from nxcc.backends.tile.expressions import Expr
from nxcc.ir.dtypes import U8
from nxcc.ir.hlo.module import Instruction


def is_head(fusion: Instruction) -> bool:
    """Whether a member has a matrix for each of many, as attention has for each head."""
    return any(i.opcode == "dot" and i.attribute("lhs_batch_dims") for i in fusion.called[0].instructions)


class Head(Member):
    """Runs attention once; what it makes lies as rows of all heads' columns."""

    def prepare(self) -> None:
        """Nothing stays: its matrices are values."""

    def take_tiles(self) -> None:
        (root,) = self.program.roots
        sizes = self.chain.lanes, 1, root.shape.element_count // self.chain.rows
        last = self.chain.last(Handed(self.number, 0))
        self.results = [[self.chain.tile(sizes, root.shape.dtype, 0, last) for _ in range(self.chain.count)]]

    def temporary_bytes(self) -> int:
        """Beside what is there from the start; the line's places are used later."""
        needed = head_bytes(self.program.operands, self.program.roots[0], self.chain.rows, self.chain.lanes)
        if not self.chain.overlaps:
            needed += HEAD_RUN_BYTES * self.chain.rows * 5 // 4  # there is room, and runs of uneven tiles take more
        return max(0, needed + self.chain.places.top(0) - self.chain.places.size)

    def take_banks(self, beside: int = 0, more: int = 0) -> None:
        """Attention takes PSUM itself."""

    def fetch(self, tiles: Sequence[tuple[int, int]]) -> None:
        """Attention loads what it needs, block by block."""

    def turn(self, number: Expr, slot: int, rows: int) -> None:
        """Nothing is multiplied from the left that another member makes."""

    def run(self, number: Expr, slot: int, rows: int, after: Callable[[], None] | None = None) -> None:
        if slot:
            return
        kernel = self.kernel
        engine = kernel.target.storing_engine if self.chain.overlaps else Engine.SYNC
        with kernel.scope(), kernel.loading(engine):
            kernel.sbuf((self.chain.lanes, self.chain.places.top(0)), U8)
            RowBatches(self.program, self.results[0], int(HEAD_SHARE * kernel.target.sbuf.usable_bytes)).lower()
