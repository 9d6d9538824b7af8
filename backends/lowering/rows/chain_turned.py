"""A member of a chain whose columns lie on partitions (see nxcc.backends.lowering.rows.chain_member)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.lowering.rows.chain_member import ROTATING_BANKS, Handed, Member
from nxcc.backends.lowering.rows.products import Sides, multiply
from nxcc.backends.lowering.rows.program import RowProgram
from nxcc.backends.lowering.rows.values import Pool, Values
from nxcc.backends.tile.expressions import Expr, Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.module import Instruction

CHUNK_BLOCKS = 6
"""As many columns as there are partitions, so often at most, come together where columns lie on partitions."""


class Turned(Member):
    """A member whose result others only multiply from the left: columns lie on partitions, as the product wants them.

    Its matrix is multiplied from the left, by as many columns at a time as there are partitions; what is added to each column
    is one value a partition. Nothing of it is to be turned.
    """

    hands_turned = True
    columns_out: list[Sides]

    @staticmethod
    def fits(program: RowProgram, handed: Mapping[Instruction, Handed],
             readers: Sequence[tuple[Instruction, RowProgram]]) -> bool:
        """Whether a program has this form. readers: programs that read its result, and as which parameter."""
        lanes = program.kernel.target.partitions
        if not (len(program.roots) == len(program.dots) == len(program.lefts) == 1 and program.is_parallel and readers):
            return False
        if any(not row.fixed or row.instruction in handed or len(row.view.dims) != program.rows + 1 for row in program.inputs):
            return False
        if any(parameter in {row.instruction for row in reader.inputs} for parameter, reader in readers):
            return False
        total = program.total_columns()
        return total % lanes == 0 and total <= lanes * lanes

    def cuts(self, dot: Instruction) -> list[tuple[int, int, int, int]]:
        _, depth, columns = self.program.side(dot).insert(0).sizes
        blocks = columns // self.kernel.target.partitions
        step = columns // blocks * max(d for d in range(1, CHUNK_BLOCKS + 1) if blocks % d == 0)
        return [(0, depth, start, step) for start in range(0, columns, step)]

    def temporary_bytes(self) -> int:
        return 2 * ROTATING_BANKS * self.program.alive() * self.chain.lanes * F32.byte_size

    def take_results(self) -> None:
        (root,) = self.program.roots
        value = Handed(self.number, 0)
        self.columns_out = [self._sides(self.program.total_columns(), root.shape.dtype, self.chain.last(value))
                            for _ in range(self.chain.buffers(value))]

    def turned_result(self, slot: int) -> Sides:
        return self.columns_out[slot % len(self.columns_out)]

    def fixed_bytes(self, view: View) -> int:
        lanes = self.kernel.target.partitions
        if view.dtype in self.kernel.target.engines[Engine.PE].dtypes:
            self.raws[view] = self.kernel.sbuf((view.elements // lanes, lanes), view.dtype)
        return view.elements // lanes * view.dtype.byte_size

    def load_fixed(self, name: Instruction, view: View, offset: Expr | None) -> Access:
        """Loaded as it lies, a run on each partition, for `spread` to turn; element by element what cannot be turned."""
        lanes = self.kernel.target.partitions
        shaped = view.reshape((view.elements // lanes, lanes))
        assert shaped is not None, f"{view.dims} is no row"
        tile = self.fixed[name] = self.tile((lanes, shaped.sizes[0]), view.dtype, offset)
        if view.dtype in self.kernel.target.engines[Engine.PE].dtypes:
            self.kernel.dma(self.raws[view], shaped)
            self.turning.append((self.raws[view], tile))
        else:
            self.kernel.dma(tile, shaped.permute((1, 0)))
        return tile

    def spread(self) -> None:
        for part in self.fixed_parts:
            self.chain.supply.require(part)
        for raw, tile in self.turning:
            with self.kernel.scope():
                bank = self.kernel.psum((tile.partitions, tile.free), raw.dtype)
                self.kernel.pe_transpose(bank, raw)
                self.kernel.copy(tile, bank, Engine.SCALAR)

    def run(self, number: Expr, slot: int, rows: int, after: Callable[[], None] | None = None) -> None:
        program, kernel = self.program, self.kernel
        (dot,), (root,), (left,) = program.dots, program.roots, self.ready.values()
        out = self.columns_out[slot % len(self.columns_out)]
        lanes, start = kernel.target.partitions, 0
        banks = itertools.cycle(self.banks_kept)

        def columns(value: Instruction) -> int:
            return rows if any(mark >= 0 for mark in program.maps[value]) else 1

        for chunk in self.chunks[dot]:
            matrix = self.chain.supply.require(chunk.part)
            for block, _ in kernel.tiles(matrix.columns // lanes, 1, turns=len(self.banks_kept) or 1):
                place = out.tile.cut(0, block + start, 1).cut(1, 0, rows)
                given = {name: tile.cut(0, block + start, 1).insert(0) for name, tile in self.fixed.items()}
                kept = [next(banks)] if self.banks_kept else []
                pool = Pool(kernel, lanes, 1, kept, spare=0)
                values = Values(kernel, program.plan, pool, columns, given, _Turn(self, left, matrix, block * lanes), 1,
                                {program.plan.shown.get(root, root): place})
                values.run()
                values.settle(root, place)
            start += matrix.columns // lanes
            self.release(chunk)
        if after is not None:
            after()


class _Turn:
    """The product of some columns of a matrix, from the left, by a left side. column: the first of them."""

    def __init__(self, member: Turned, left: Sides, matrix: Sides, column: Index) -> None:
        self.member, self.left, self.matrix, self.column = member, left, matrix, column

    def __call__(self, dot: Instruction, left: Access | None, out: Access) -> None:
        kernel, (lanes, _, rows) = self.member.kernel, out.sizes
        bank = out.at(0, 0) if out.memory is Memory.PSUM else kernel.psum((lanes, rows))
        multiply(kernel, bank, self.matrix, self.left, 0, (self.column, lanes), (0, rows))
        if out.memory is not Memory.PSUM:
            kernel.copy(out.at(0, 0), bank)
