"""Schedules of NKIBench's kernels with a softmax over rows of 4096 scores, as their sources loop (f32, AccelOpt repository).

Both make all scores of a head before they use the first, which the chip cannot hold. The profiles say how many bytes of them
the compiler moved to memory and back; which of the equal pieces these are makes no difference here.
"""

from __future__ import annotations

from calibration.writing import P, block, folded, matrix, rotated

from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access, View
from nxcc.ir.dtypes import F32

LENGTH, WIDE = 4096, 512
PIECES = LENGTH // WIDE
TILES = LENGTH // P


class _Rows:
    """Scores of a head [4096, 4096] between the two halves of a softmax: some pieces of columns stay, others are in memory."""

    def __init__(self, kernel: Kernel, place: View, staying: int) -> None:
        self.kernel, self.place, self.staying = kernel, place, staying
        self.kept = kernel.sbuf((P, TILES, max(1, staying) * WIDE), F32)
        self.most = kernel.sbuf((P, TILES, PIECES), F32)
        self.rings = [{"s": kernel.sbuf((P, LENGTH - staying * WIDE), F32), "sums": kernel.sbuf((P, PIECES), F32),
                       "m": kernel.sbuf((P, 1), F32), "all": kernel.sbuf((P, 1), F32)} for _ in range(2)]
        self.staged = [ring["s"].cut(0, half * WIDE, WIDE) for ring in self.rings for half in range(2)]

    def put(self, tile: Index, piece: int, part: Access, scale: float = 1.0) -> None:
        """A piece of scores leaves PSUM through Scalar; its rows' maximum is Vector's."""
        stays = piece < self.staying
        out = self.kept.at(0, tile).cut(0, piece * WIDE, WIDE) if stays else self.staged[piece % 4]
        self.kernel.activation(out, part, scale=scale)
        self.kernel.tensor_reduce(self.most.at(0, tile).cut(0, piece, 1), out, "maximum", negate=True)
        if not stays:
            self.kernel.dma(block(self.place, tile * P, P, piece * WIDE, WIDE), out, engine=Engine.SCALAR)

    def load(self, tile: Index, number: int) -> None:
        """What is in memory of a tile's rows."""
        first = self.staying * WIDE
        self.kernel.dma(self.rings[number]["s"], block(self.place, tile * P, P, first, LENGTH - first))

    def softmax(self, tile: Index, number: int) -> list[Access]:
        """Exponentials, their sums, their quotients, each piece in place; the pieces."""
        kernel, t = self.kernel, self.rings[number]
        pieces = [self.kept.at(0, tile).cut(0, n * WIDE, WIDE) for n in range(self.staying)] + \
            [t["s"].cut(0, n * WIDE, WIDE) for n in range(PIECES - self.staying)]
        kernel.tensor_reduce(t["m"], self.most.at(0, tile), "minimum")
        for n, piece in enumerate(pieces):
            kernel.activation(piece, piece, "exp", bias=t["m"])
            kernel.tensor_reduce(t["sums"].cut(0, n, 1), piece, "add")
        kernel.tensor_reduce(t["all"], t["sums"], "add")
        kernel.reciprocal(t["all"], t["all"])
        return pieces


def bmm_softmax(kernel: Kernel) -> None:
    """softmax of 16 products of 4096 x 64 by 64 x 4096: of the eight pieces of a row two stay, as about the profile says (0.73
    of 1.07 GB went to memory and back); Vector makes maxima, sums and quotients."""
    batch, inner = 16, 64
    left, right, out = matrix(0, batch * LENGTH, inner), matrix(1, batch * inner, LENGTH), matrix(2, batch * LENGTH, LENGTH)
    rows = _Rows(kernel, matrix(3, LENGTH, LENGTH), 2)
    held = kernel.sbuf((inner, LENGTH), F32)
    raw = [kernel.sbuf((P, inner), F32) for _ in range(2)]
    turned = [kernel.sbuf((inner, P), F32) for _ in range(2)]
    banks = [kernel.psum((P, P), F32) for _ in range(2)]
    sums = [kernel.psum((P, WIDE)) for _ in range(4)]
    with kernel.loop(batch) as n:
        kernel.dma(held, block(right, n * inner, inner, 0, LENGTH))
        with rotated(kernel, TILES) as tiles:
            for number, tile in enumerate(tiles):
                kernel.dma(raw[number], block(left, n * LENGTH + tile * P, P, 0, inner))
                kernel.pe_transpose(banks[number].rows(0, inner), raw[number])
                kernel.activation(turned[number], banks[number].rows(0, inner))
                for piece in range(PIECES):
                    kernel.matmul(sums[piece % 4], turned[number], held.cut(0, piece * WIDE, WIDE))
                    rows.put(tile, piece, sums[piece % 4])
        with rotated(kernel, TILES) as tiles:
            for number, tile in enumerate(tiles):
                rows.load(tile, number)
                for piece, values in enumerate(rows.softmax(tile, number)):
                    kernel.tensor_scalar(values, values, "multiply", rows.rings[number]["all"])
                    kernel.dma(block(out, n * LENGTH + tile * P, P, piece * WIDE, WIDE), values, engine=Engine.SCALAR)


def gqa(kernel: Kernel) -> None:
    """16 heads of 128 over 4096 places, two for each of 8 keys: all scores go to memory and back (1.10 and 1.13 GB), quotients
    are turned and copied square by square and multiplied with V 128 columns at a time."""
    heads, shared = 16, 2
    q, k, v = (matrix(n, LENGTH, heads // by * P) for n, by in enumerate((1, shared, shared)))
    out = matrix(3, heads * LENGTH, P)
    rows = _Rows(kernel, matrix(4, LENGTH, LENGTH), 0)
    keys, values = kernel.sbuf((P, TILES, P), F32), kernel.sbuf((P, TILES, P), F32)
    raw = [kernel.sbuf((P, P), F32) for _ in range(2)]
    turned = [kernel.sbuf((P, P), F32) for _ in range(2)]
    banks = [kernel.psum((P, 4, P), F32) for _ in range(2)]
    sums = [kernel.psum((P, WIDE)) for _ in range(4)]
    squares = [kernel.sbuf((P, TILES, P), F32) for _ in range(2)]
    results = [kernel.sbuf((P, P), F32) for _ in range(2)]
    with kernel.loop(heads // shared) as key:
        with rotated(kernel, TILES) as tiles:
            for number, tile in enumerate(tiles):
                kernel.dma(raw[number], block(k, tile * P, P, key * P, P))
                kernel.pe_transpose(banks[number].at(0, 0), raw[number])
                kernel.activation(keys.at(0, tile), banks[number].at(0, 0))
        kernel.dma(values, folded(v, 0, TILES, key * P, P))
        with kernel.loop(shared) as head:
            with rotated(kernel, TILES) as tiles:
                for number, tile in enumerate(tiles):
                    kernel.dma(raw[number], block(q, tile * P, P, (key * shared + head) * P, P))
                    kernel.pe_transpose(banks[number].at(0, 0), raw[number])
                    kernel.activation(turned[number], banks[number].at(0, 0))
                    for piece in range(PIECES):
                        moving = keys.cut(0, piece * 4, 4).flat()
                        kernel.matmul(sums[piece % 4], turned[number], moving)
                        rows.put(tile, piece, sums[piece % 4], 0.08838834764831843)
            with rotated(kernel, TILES) as tiles:
                for number, tile in enumerate(tiles):
                    rows.load(tile, number)
                    for piece, part in enumerate(rows.softmax(tile, number)):
                        kernel.tensor_scalar(part, part, "multiply", rows.rings[number]["all"])
                        for square in range(4):
                            bank = banks[piece % 2].at(0, square)
                            kernel.pe_transpose(bank, part.cut(0, square * P, P))
                            kernel.activation(squares[number].at(0, piece * 4 + square), bank)
                    for square in range(TILES):
                        kernel.matmul(sums[number].cut(0, 0, P), squares[number].at(0, square), values.at(0, square),
                                      accumulate=square > 0)
                    kernel.activation(results[number], sums[number].cut(0, 0, P))
                    kernel.dma(block(out, (key * shared + head) * LENGTH + tile * P, P, 0, P), results[number],
                               engine=Engine.SCALAR)
