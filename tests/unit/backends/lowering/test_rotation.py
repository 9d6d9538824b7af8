"""Banks of PSUM take turns in loops also where tiles of SBUF do not: one is filled while another is emptied."""

from __future__ import annotations

from nxcc.backends.lowering.rows.products import sides, turn
from nxcc.backends.target import load_target
from nxcc.backends.tile.builder import SINGLE, Kernel
from nxcc.backends.tile.program import Access, Loop, Op
from nxcc.ir.dtypes import BF16

BLOCKS = 48
PER_BANK = 8


def test_turned_blocks_alternate_between_banks_where_no_tiles_rotate() -> None:
    kernel = Kernel("test", load_target("v2"), SINGLE)
    raw = kernel.sbuf((128, 1, BLOCKS * 128), BF16)
    turn(kernel, raw, sides(kernel, BLOCKS * 128, 1, 128, BF16, False))
    (loop,) = (item for item in kernel.program.body if isinstance(item, Loop))
    banks = [bank_of(op) for op in loop.body if isinstance(op, Op) and op.spec.name == "pe_transpose"]
    first, second = banks[0], banks[PER_BANK]
    assert first != second and banks == [first] * PER_BANK + [second] * PER_BANK


def bank_of(op: Op) -> int:
    out = op.operands["out"]
    assert isinstance(out, Access)
    return out.offset.constant // 2048
