"""Schedules of published attention kernels and of a fused RMSNorm and projection; products of fewer than 512 columns.

Attention over 4096 positions, one head: the best two of published searches (Autocomp, 4_attention and 5_sd_attention), and the
vendor's RMSNorm+QKV sample. What is copied out of PSUM goes through Vector unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable

from calibration.writing import P, block, folded, matrix, rotated

from nxcc.backends.isa.program import Engine
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.expressions import Index
from nxcc.backends.tile.program import Access
from nxcc.ir.dtypes import BF16, F32, DType

LENGTH = 4096


def attention_128(kernel: Kernel) -> None:  # noqa: C901 - stages of one pipeline over shared tiles
    """Head of 128, operands [d, positions] in bf16: scores of 512 columns at a time, their exponentials in squares that PE
    turns and multiplies with V; the sums of each square on Vector; the maximum of the first rows serves all."""
    q, k, v = (matrix(n, P, LENGTH, BF16) for n in range(3))
    out = matrix(3, LENGTH, P, BF16)
    held = [kernel.sbuf((P, LENGTH), BF16) for _ in range(3)]
    values = kernel.sbuf((P, LENGTH // P, P), BF16)
    for tile, source in zip(held, (q, k, v), strict=True):
        kernel.dma(tile, source)
    scores = [kernel.psum((P, 512)) for _ in range(2)]
    turned = [kernel.psum((P, 4, P), BF16) for _ in range(2)]
    sums = [kernel.psum((P, P)) for _ in range(2)]
    with kernel.loop(LENGTH // P) as tile:
        kernel.pe_transpose(turned[0].at(0, 0), held[2].cut(0, tile * P, P))
        kernel.copy(values.at(0, tile), turned[0].at(0, 0))
    most = kernel.sbuf((P, 1), F32)
    rings = [{"e": kernel.sbuf((P, 4, P), BF16), "t": kernel.sbuf((P, 4, P), BF16)} for _ in range(4)]
    rows = [{"s": kernel.sbuf((P, LENGTH // P), F32), "all": kernel.sbuf((P, 1), F32), "o": kernel.sbuf((P, P), BF16)}
            for _ in range(2)]
    kernel.memset(most, 0)

    def score(tile: Index, step: int) -> None:
        part, ring = scores[step % 2], rings[step % 4]
        kernel.matmul(part, held[0].cut(0, tile * P, P), held[1].cut(0, step * 512, 512))
        for j in range(4):
            kernel.activation(ring["e"].at(0, j), part.cut(0, j * P, P), "exp", bias=most)

    def turn(r: dict[str, Access], step: int) -> None:
        ring, place = rings[step % 4], turned[step % 2]
        for j in range(4):
            kernel.pe_transpose(place.at(0, j), ring["e"].at(0, j))
        for j in range(4):
            kernel.tensor_reduce(r["s"].cut(0, step * 4 + j, 1), ring["e"].at(0, j), "add")
        for j in range(4):
            kernel.copy(ring["t"].at(0, j), place.at(0, j))

    def add(total: Access, step: int) -> None:
        for j in range(4):
            kernel.matmul(total, rings[step % 4]["t"].at(0, j), values.at(0, step * 4 + j), accumulate=bool(step or j))

    with rotated(kernel, LENGTH // P) as tiles:
        for tile, r, total in zip(tiles, rows, sums, strict=True):
            pipelined(LENGTH // 512, lambda step, tile=tile: score(tile, step), lambda step, r=r: turn(r, step),
                      lambda step, total=total: add(total, step))
            kernel.tensor_reduce(r["all"], r["s"], "add")
            kernel.reciprocal(r["all"], r["all"])
            kernel.tensor_scalar(r["o"], total, "multiply", r["all"])
            kernel.dma(block(out, tile * P, P, 0, P), r["o"], engine=Engine.SCALAR)


def pipelined(steps: int, *stages: Callable[[int], None]) -> None:
    """Each stage of a step is issued behind the stage before of the next step."""
    for time in range(steps + len(stages) - 1):
        for delay, stage in enumerate(stages):
            if 0 <= time - delay < steps:
                stage(time - delay)


def attention_64(kernel: Kernel) -> None:  # noqa: C901 - stages of one pipeline over shared tiles
    """Head of 64, operands [positions, d] in f32, products in bf16: rows of scores come to SBUF square by square, one
    exponential a row of tiles with its sum, squares turned by PE and multiplied with V."""
    d, squares = 64, LENGTH // P
    q, k, v, out = (matrix(n, LENGTH, d, F32) for n in range(4))
    turned_q, turned_k = (kernel.sbuf((d, LENGTH), BF16) for _ in range(2))
    values = kernel.sbuf((P, squares, d), BF16)
    kernel.dma(values, folded(v, 0, squares, 0, d))
    banks = [kernel.psum((P, 4, P), F32) for _ in range(2)]
    sums = [kernel.psum((P, d)) for _ in range(2)]
    turning = [kernel.psum((P, 4, P), BF16) for _ in range(2)]
    raw = kernel.sbuf((P, squares, d), F32)
    for source, tile in ((q, turned_q), (k, turned_k)):
        kernel.dma(raw, folded(source, 0, squares, 0, d))
        with rotated(kernel, squares) as indices:
            for bank, index in zip(banks, indices, strict=True):
                kernel.pe_transpose(bank.at(0, 0).rows(0, d), raw.at(0, index))
                kernel.copy(tile.cut(0, index * P, P), bank.at(0, 0).rows(0, d))
    rings = [{"s": kernel.sbuf((P, LENGTH), BF16), "e": kernel.sbuf((P, LENGTH), BF16), "t": kernel.sbuf((P, squares, P), BF16),
              "most": kernel.sbuf((P, squares), F32), "m": kernel.sbuf((P, 1), F32), "sum": kernel.sbuf((P, 1), F32),
              "inverse": kernel.sbuf((P, 1), F32),              "o": kernel.sbuf((P, d), F32)} for _ in range(4)]

    def score(tile: Access, r: dict[str, Access], group: int) -> None:
        steps = range(4 * group, 4 * group + 4)
        for step in steps:
            kernel.matmul(banks[group % 2].at(0, step % 4), tile, turned_k.cut(0, step * P, P))
        for step in steps:
            kernel.copy(r["s"].cut(0, step * P, P), banks[group % 2].at(0, step % 4))
        for step in steps:
            kernel.tensor_reduce(r["most"].cut(0, step, 1), r["s"].cut(0, step * P, P), "maximum", negate=True)

    def turn(r: dict[str, Access], group: int) -> None:
        steps = range(4 * group, 4 * group + 4)
        for step in steps:
            kernel.pe_transpose(turning[group % 2].at(0, step % 4), r["e"].cut(0, step * P, P))
        for step in steps:
            kernel.copy(r["t"].at(0, step), turning[group % 2].at(0, step % 4))

    def add(r: dict[str, Access], total: Access, group: int) -> None:
        for step in range(4 * group, 4 * group + 4):
            kernel.matmul(total, r["t"].at(0, step), values.at(0, step), accumulate=step > 0)

    def row(now: dict[str, Access], tile: Access, before: dict[str, Access], total: Access) -> None:
        """Scores of a row of tiles between the products of the row before the last, whose exponentials are done."""
        pipelined(squares // 4, lambda group: score(tile, now, group), lambda group: turn(before, group),
                  lambda group: add(before, total, group))
        kernel.tensor_reduce(now["m"], now["most"], "minimum")
        kernel.activation(now["e"], now["s"], "exp", bias=now["m"], sum=now["sum"])
        kernel.reciprocal(before["inverse"], before["sum"])
        kernel.tensor_scalar(before["o"], total, "multiply", before["inverse"])

    with rotated(kernel, squares, 4) as indices:
        for now, index in enumerate(indices):
            before = rings[now - 2]
            row(rings[now], turned_q.cut(0, index * P, P), before, sums[now % 2])
            kernel.dma(block(out, index * P, P, 0, d), before["o"], engine=Engine.SCALAR)


def _rmsnorm_project(kernel: Kernel, rows: int, inner: int, columns: int, dtype: DType) -> None:
    """(x / sqrt(mean of squares)) . w: squares and their sum in one activation, squares of the rows turned by PE."""
    x, w, out = matrix(0, rows, inner, dtype), matrix(1, inner, columns, dtype), matrix(2, rows, columns, dtype)
    weights = kernel.sbuf((P, inner // P, columns), dtype)
    kernel.dma(weights, folded(w, 0, inner // P, 0, columns))
    tiles = [{"x": kernel.sbuf((P, inner), dtype), "q": kernel.sbuf((P, inner), F32), "s": kernel.sbuf((P, 1), F32),
              "n": kernel.sbuf((P, inner), dtype), "t": kernel.sbuf((P, inner // P, P), dtype),
              "o": kernel.sbuf((P, columns), dtype)} for _ in range(2)]
    turned, sums = kernel.psum((P, inner // P, P), dtype), kernel.psum((P, columns))
    for index in range(rows // P):
        t = tiles[index % 2]
        kernel.dma(t["x"], block(x, index * P, P, 0, inner))
        kernel.activation(t["q"], t["x"], "square", sum=t["s"])
        kernel.activation(t["s"], t["s"], "rsqrt", scale=1 / inner)
        kernel.tensor_scalar(t["n"], t["x"], "multiply", t["s"])
        for k in range(inner // P):
            kernel.pe_transpose(turned.at(0, k), t["n"].cut(0, k * P, P))
        kernel.copy(t["t"], turned)
        for k in range(inner // P):
            kernel.matmul(sums, t["t"].at(0, k), weights.at(0, k), accumulate=k > 0)
        kernel.copy(t["o"], sums)
        kernel.dma(block(out, index * P, P, 0, columns), t["o"], engine=Engine.SCALAR)


def rmsnorm_qkv_small(kernel: Kernel) -> None:
    """128 x 512 by 512 x 512 (f16 on the chip; as many bytes here)."""
    _rmsnorm_project(kernel, 128, 512, 512, BF16)


def rmsnorm_qkv(kernel: Kernel) -> None:
    """512 x 1024 by 1024 x 384 in bf16."""
    _rmsnorm_project(kernel, 512, 1024, 384, BF16)
