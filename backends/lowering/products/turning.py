"""Operands whose rows are contiguous along k: loaded as they lie, and turned by the tensor engine block by block of k."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.halo import blocked
from nxcc.backends.lowering.products.operands import Depth
from nxcc.backends.lowering.products.spans import loop
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr, Index, expr
from nxcc.backends.tile.program import Access, View


def tile_rows(kernel: Kernel, rows: int) -> int:
    """Rows of a tile: as few tiles as there can be, of one size if that comes out even and code is not written out anyway."""
    lanes = kernel.target.partitions
    tiles = -(-rows // lanes)
    return lanes if rows % tiles or not kernel.target.features.registers else rows // tiles


def tiles_of(rows: int, height: int) -> Iterator[tuple[int, int, int]]:
    """(first row, rows of a tile, tiles): the whole tiles, then what is left."""
    full, rest = divmod(rows, height)
    if full:
        yield 0, height, full
    if rest:
        yield full * height, rest, 1


def load_rows(kernel: Kernel, block: View, raw: Access, rows: int, engine: Engine = Engine.SYNC) -> None:
    """raw [128, tiles, k] = rows as they lie."""
    outer, inner = block.sizes[1:]
    height = tile_rows(kernel, rows)
    for start, count, tiles in tiles_of(rows, height):
        place = raw.cut(0, start // height, tiles).rows(0, count)
        (pitch, _), (tile, _), (near, _) = place.linear().dims
        (stride, _), *depths = block.cut(0, start, count * tiles).dims
        source = replace(block.cut(0, start, count * tiles), dims=((stride, count), (stride * count, tiles), *depths))
        kernel.dma(replace(place.linear(), dims=((pitch, count), (tile, tiles), (near * inner, outer), (near, inner))),
                   source, engine=engine)


class Turning:
    """Turns what `load_rows` has loaded: squares side by side in a bank of PSUM; engines empty banks in turns.

    banks: [128, number, elements of a bank]. always: whether there is a loop for a single round as well.
    """

    def __init__(self, kernel: Kernel, banks: Access, engines: tuple[Engine, ...], always: bool = False) -> None:
        self.kernel, self.banks, self.engines, self.always = kernel, banks, engines, always

    def turn(self, raw: Access, out: Access, depth: Depth, size: int, rows: int) -> None:
        """out [unit, blocks, rows] = raw [128, tiles, k] turned, `size` elements of k."""
        height = tile_rows(self.kernel, rows)
        step = self.banks.sizes[2] // height * height
        if size > depth.unit:
            for start, tall, parts in tiles_of(rows, step):
                with loop(self.kernel, parts) as index:
                    self._rows(raw, index * (step // height) + start // height, out.cut(1, index * step + start, tall), depth,
                               size, height)
            return
        # Rows take turns where there is a single block of k.
        if rows <= step * len(self.engines):
            step = height
        for first, count, bank, engine in self._pieces(rows, step, self.banks.sizes[1]):
            self._blocks(raw, blocked(first, height), expr(0), 1, size, bank, height, out.rows(0, size).cut(1, first, count),
                         engine)

    def _rows(self, raw: Access, first: Expr, out: Access, depth: Depth, size: int, height: int) -> None:
        """As many rows as a bank holds, from a tile on."""
        rows = out.sizes[-1]
        number, bank = self.banks.sizes[1:]
        full, rest = divmod(size, depth.unit)
        at_once, banks = _rounds(full, min(max(1, full // PIECES), bank // rows), number)
        for b, count, place, engine in self._pieces(full, at_once, banks):
            self._blocks(raw, first, b, count, depth.unit, place, height, out.cut(0, b, count).rows(0, depth.unit), engine)
        if rest:
            self._blocks(raw, first, expr(full), 1, rest, 0, height, out.cut(0, full, 1).rows(0, rest), self.engines[0],
                         depth.unit)

    def _pieces(self, total: int, step: int, banks: int) -> Iterator[tuple[Expr, int, Index, Engine]]:
        """0..total in pieces of `step`: (first, how many, bank, engine that empties it)."""
        full, rest = divmod(total, step)
        written = min(len(self.engines), banks)
        banks -= banks % written
        rounds, single = divmod(full, banks) if full > 1 else (0, full)
        if rounds:
            with loop(self.kernel, rounds, always=self.always) as index, \
                    loop(self.kernel, banks // written, slots=True) as slot:
                for number in range(written):
                    yield (index * banks + slot * written + number) * step, step, slot * written + number, self.engines[number]
        for piece in range(single):
            yield expr((rounds * banks + piece) * step), step, piece, self.engines[piece % written]
        if rest:
            yield expr(full * step), rest, single % banks, self.engines[single % written]

    def _blocks(self, raw: Access, first: Expr, block: Expr, count: int, size: int, bank: Index, height: int, out: Access,
                engine: Engine, unit: int = 0) -> None:
        """Some blocks of k of some tiles of rows, through a bank. unit: of a block, if it is larger than its size."""
        rows = out.sizes[-1]
        place = self.banks.at(0, bank).rows(0, size).cut(0, 0, count * rows)
        with loop(self.kernel, count) as one:
            k = (block + one) * (unit or size)
            for start, tall, tiles in tiles_of(rows, height):
                with loop(self.kernel, tiles) as tile:
                    self.kernel.pe_transpose(place.cut(0, one * rows + tile * height + start, tall),
                                             raw.at(0, first + tile + start // height).rows(0, tall).cut(0, k, size))
        self.kernel.copy(out, place.reshape(count, rows) if count > 1 else place.insert(0), engine)


PIECES = 4
"""In which blocks go through banks, at least: the last one's way out is what products wait for."""


def _rounds(blocks: int, most: int, banks: int) -> tuple[int, int]:
    """(blocks in a bank, banks that take turns): as much at once as leaves little to write apart."""
    def left(at_once: int, number: int) -> int:
        full, rest = divmod(blocks, at_once)
        return full % number + bool(rest)
    choices = [(at_once, number) for at_once in range(most, 0, -1) for number in (banks, banks // 2) if number]
    return min(choices, key=lambda choice: (left(*choice), -choice[0] * choice[1]), default=(1, 1))
