"""Schedules of published bf16 products of 4096 x 8192 and 8192 x 8192, the left operand transposed in memory.

The four variants of the NKI matrix multiplication tutorial, and the five of a published search over the same product (Autocomp,
trn-tutorial/2_gemm_trace). The first of both is the same code: 51.8 ms in one source and 20.99 ms in the other. The first
number follows if all loads go through one queue, the second if they are spread: what the two compilers did with transfers is
part of the schedule.
"""

from __future__ import annotations

from calibration.writing import P, arrived, block, folded, matrix, products, rotated

from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Expr
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import BF16, F32

M, K, N = 4096, 8192, 8192
LEFT, RIGHT, OUT = matrix(0, K, M, BF16), matrix(1, K, N, BF16), matrix(2, M, N, BF16)


def tiled(kernel: Kernel) -> None:
    """Every product loads both of its operands."""
    lefts = [kernel.sbuf((P, P), BF16) for _ in range(4)]
    rights = [kernel.sbuf((P, 512), BF16) for _ in range(4)]
    results = [kernel.sbuf((P, 512), BF16) for _ in range(2)]
    outs = [kernel.psum((P, 512)) for _ in range(2)]
    with kernel.loop(M // P) as m, rotated(kernel, N // 512) as columns:
        for n, result, out in zip(columns, results, outs, strict=True):
            kernel.memset(out, 0)
            with rotated(kernel, K // P, 4) as indices:
                for k, left, right in zip(indices, lefts, rights, strict=True):
                    kernel.dma(left, block(LEFT, k * P, P, m * P, P))
                    kernel.dma(right, block(RIGHT, k * P, P, n * 512, 512))
                    kernel.matmul(out, left, right, accumulate=True)
            kernel.copy(result, out)
            kernel.dma(block(OUT, m * P, P, n * 512, 512), result, engine=Engine.SCALAR)


def hoisted(kernel: Kernel) -> None:
    """Loads leave the innermost loop: the left operand stays for a row of tiles."""
    left = kernel.sbuf((P, K // P, P), BF16)
    rights = [kernel.sbuf((P, K // P, 512), BF16) for _ in range(2)]
    results = [kernel.sbuf((P, 512), BF16) for _ in range(2)]
    outs = [kernel.psum((P, 512)) for _ in range(2)]
    with kernel.loop(M // P) as m:
        for k in range(K // P):
            kernel.dma(left.at(0, k), block(LEFT, k * P, P, m * P, P))
        arrived(kernel, outs[0], left)
        with rotated(kernel, N // 512) as indices:
            for n, right, result, out in zip(indices, rights, results, outs, strict=True):
                for k in range(K // P):
                    kernel.dma(right.at(0, k), block(RIGHT, k * P, P, n * 512, 512))
                arrived(kernel, out, right)
                products(kernel, out, K // P, lambda k: left.at(0, k), lambda k, right=right: right.at(0, k))
                kernel.copy(result, out)
                kernel.dma(block(OUT, m * P, P, n * 512, 512), result, engine=Engine.SCALAR)


def blocked(kernel: Kernel) -> None:
    """Blocks of 2 x 2 tiles share what is loaded; one block of each operand fits."""
    left = kernel.sbuf((P, K // P, 2 * P), BF16)
    right = kernel.sbuf((P, K // P, 1024), BF16)
    result = kernel.sbuf((P, 512), BF16)
    outs = [kernel.psum((P, 512)) for _ in range(4)]
    with kernel.loop(M // (2 * P)) as m:
        for k in range(K // P):
            kernel.dma(left.at(0, k), block(LEFT, k * P, P, m * (2 * P), 2 * P))
        arrived(kernel, outs[0], left)
        with kernel.loop(N // 1024) as n:
            for k in range(K // P):
                kernel.dma(right.at(0, k), block(RIGHT, k * P, P, n * 1024, 1024))
            arrived(kernel, outs[0], right)
            for number, out in enumerate(outs):
                row, column = divmod(number, 2)
                products(kernel, out, K // P, lambda k, row=row: left.at(0, k).cut(0, row * P, P),
                         lambda k, column=column: right.at(0, k).cut(0, column * 512, 512))
                kernel.copy(result, out)
                kernel.dma(block(OUT, m * (2 * P) + row * P, P, n * 1024 + column * 512, 512), result, engine=Engine.SCALAR)


def blocked_in_all(kernel: Kernel) -> None:
    """Blocks in all three dimensions: 2048 x 1024 x 1024, sums of blocks kept in SBUF in bf16 and stored row by row."""
    tiles_m, tiles_k = 16, 8
    depth = tiles_k * P
    lefts = [kernel.sbuf((P, tiles_k, tiles_m * P), BF16) for _ in range(2)]
    rights = [kernel.sbuf((P, tiles_k, 1024), BF16) for _ in range(2)]
    sums = kernel.sbuf((P, M // P, 1024), BF16)
    packed = [kernel.sbuf((P, 1024), BF16) for _ in range(2)]
    outs = [kernel.psum((P, 512)) for _ in range(4)]

    def rows(bk: Expr, left: Access, right: Access, bm: int, part: str) -> None:
        """A block of 2048 rows with a block of K: the first writes the sums, the last stores them."""
        with rotated(kernel, tiles_m) as indices:
            for parity, m in enumerate(indices):
                row, place = sums.at(0, m + bm * tiles_m), packed[parity]
                for column, out in enumerate(outs[2 * parity:2 * parity + 2]):
                    products(kernel, out, tiles_k, lambda k, m=m: left.at(0, k).cut(0, m * P, P),
                             lambda k, column=column: right.at(0, k).cut(0, column * 512, 512))
                    piece, stored = row.cut(0, column * 512, 512), place.cut(0, column * 512, 512)
                    if part == "first":
                        kernel.copy(piece, out)
                    else:
                        kernel.tensor_tensor(stored if part == "last" else piece, piece, out, "add")
                if part == "last":
                    kernel.dma(block(OUT, (m + bm * tiles_m) * P, P, current * 1024, 1024), place, engine=Engine.SCALAR)

    def depth_block(bk: Expr, right: Access, part: str) -> None:
        kernel.dma(right, folded(RIGHT, bk * depth, tiles_k, current * 1024, 1024))
        arrived(kernel, outs[0], right)
        for bm, left in enumerate(lefts):
            kernel.dma(left, folded(LEFT, bk * depth, tiles_k, bm * tiles_m * P, tiles_m * P))
            arrived(kernel, outs[0], left)
            rows(bk, left, right, bm, part)

    with kernel.loop(N // 1024) as current:
        depth_block(Expr(0), rights[0], "first")
        with rotated(kernel, K // depth - 2) as blocks:
            for bk, right in zip(blocks, rights[::-1], strict=True):
                depth_block(bk + 1, right, "middle")
        depth_block(Expr(K // depth - 1), rights[1], "last")


def _search(kernel: Kernel, rows: int, columns: int, wide_right: bool, wide_left: bool) -> None:
    """`rows` x `columns` tiles of results share the loads of a step of K; wide: their operand comes in one transfer."""
    ring, outs = 4, [kernel.psum((P, 512)) for _ in range(rows * columns)]
    lefts = [kernel.sbuf((P, rows * P), BF16) for _ in range(ring)]
    rights = [kernel.sbuf((P, columns * 512), BF16) for _ in range(ring)]
    results = [kernel.sbuf((P, 512), BF16) for _ in outs]
    with kernel.loop(M // (rows * P)) as m, kernel.loop(N // (columns * 512)) as n:
        for out in outs:
            kernel.memset(out, 0)
        with rotated(kernel, K // P, ring) as indices:
            for k, left, right in zip(indices, lefts, rights, strict=True):
                for tile, source, start, width, wide in (
                        (left, LEFT, m * (rows * P), P, wide_left), (right, RIGHT, n * (columns * 512), 512, wide_right)):
                    step = tile.free if wide else width
                    for piece in range(0, tile.free, step):
                        kernel.dma(tile.cut(0, piece, step), block(source, k * P, P, start + piece, step))
                for number, out in enumerate(outs):
                    row, column = divmod(number, columns)
                    kernel.matmul(out, left.cut(0, row * P, P), right.cut(0, column * 512, 512), accumulate=True)
        for number, (out, result) in enumerate(zip(outs, results, strict=True)):
            row, column = divmod(number, columns)
            kernel.copy(result, out)
            kernel.dma(block(OUT, m * (rows * P) + row * P, P, n * (columns * 512) + column * 512, 512), result,
                       engine=Engine.SCALAR)


def search_two_by_two(kernel: Kernel) -> None:
    """2 x 2 tiles a step."""
    _search(kernel, 2, 2, False, False)


def search_four_by_two(kernel: Kernel) -> None:
    """4 x 2 tiles a step: all PSUM banks."""
    _search(kernel, 4, 2, False, False)


def search_wide_right(kernel: Kernel) -> None:
    """As search_four_by_two, the right operand's two tiles in one transfer."""
    _search(kernel, 4, 2, True, False)


def search_wide_both(kernel: Kernel) -> None:
    """Both operands in one transfer each: descriptors of 1 KiB and more."""
    _search(kernel, 4, 2, True, True)


def transpose_matmul(kernel: Kernel) -> None:
    """4096 x 2048 x 10944 in f32 (NKIBench): a block of 1024 rows of the left operand stays, the right one streams by four
    times."""
    rows, inner, columns, tiles = 4096, 2048, 10944, 8
    left, right, out = matrix(0, inner, rows), matrix(1, inner, columns), matrix(2, rows, columns)
    lefts = kernel.sbuf((P, inner // P, tiles * P), F32)
    rights = [kernel.sbuf((P, inner // P, 512), F32) for _ in range(2)]
    results = [kernel.sbuf((P, 512), F32) for _ in range(2)]
    sums = [kernel.psum((P, 512)) for _ in range(4)]

    def column(mb: Expr, n: Expr | int, width: int, held: Access) -> None:
        for k in range(inner // P):
            kernel.dma(held.at(0, k).cut(0, 0, width), block(right, k * P, P, n * 512, width))
        arrived(kernel, sums[0], held)
        for m in range(tiles):
            part, result = sums[m % 4].cut(0, 0, width), results[m % 2].cut(0, 0, width)
            products(kernel, part, inner // P, lambda k, m=m: lefts.at(0, k).cut(0, m * P, P),
                     lambda k: held.at(0, k).cut(0, 0, width))
            kernel.activation(result, part)
            kernel.dma(block(out, mb * (tiles * P) + m * P, P, n * 512, width), result, engine=Engine.SCALAR)

    with kernel.loop(rows // (tiles * P)) as mb:
        for k in range(inner // P):
            kernel.dma(lefts.at(0, k), block(left, k * P, P, mb * (tiles * P), tiles * P))
        arrived(kernel, sums[0], lefts)
        with rotated(kernel, columns // 512 - 1) as indices:
            for n, held in zip(indices, rights, strict=True):
                column(mb, n, 512, held)
        column(mb, columns // 512 - 1, 512, rights[0])
        column(mb, columns // 512, columns % 512, rights[1])
