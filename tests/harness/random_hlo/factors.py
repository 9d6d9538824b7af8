"""Factorisations and transforms, which the host runs: what matters is what lies before and behind them."""

from __future__ import annotations

import numpy as np

from nxcc.ir.dtypes import C64, F32
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.shapes import array

from harness.random_hlo.generator import Generator, maker


def _definite(g: Generator, x: Instruction) -> Instruction:
    """x x^T + 8 n for the matrices in the last two dimensions, of values between -3 and 3: positive definite."""
    builder, rank, rows = g.scope.builder, x.shape.rank, x.shape.dims[-2]
    low, high = (builder.constant(np.float32(n)) for n in (-3, 3))
    real = g.make("select", g.make("compare", x, x, direction="EQ"), x,
                  builder.broadcast(builder.constant(np.float32(0)), x.shape.dims))
    tame = g.make("clamp", low, real, high)
    outer = list(range(rank - 2))
    square = builder.dot(tame, tame, ([rank - 1], [rank - 1]), (outer, outer))
    shape = array(F32, rows, rows)
    eye = g.make("convert", g.make("compare", g.make("iota", shape=shape, iota_dimension=0),
                                   g.make("iota", shape=shape, iota_dimension=1), direction="EQ"), shape=shape)
    scaled = g.make("multiply", eye, builder.broadcast(builder.constant(np.float32(8 * x.shape.dims[-1])), shape.dims))
    return g.make("add", square, builder.broadcast(scaled, square.shape.dims, (rank - 2, rank - 1)))


def _matrices(g: Generator) -> Instruction | None:
    return g.pick(lambda s: s.rank >= 2 and s.dtype is F32 and 0 < s.element_count <= 1500 and max(s.dims[-2:]) <= 20)


@maker("cholesky")
def _cholesky(g: Generator) -> Instruction | None:
    x = _matrices(g)
    return x and g.make("cholesky", _definite(g, x), lower=g.random.random() < 0.5)


@maker("triangular-solve")
def _triangular_solve(g: Generator) -> Instruction | None:
    x = _matrices(g)
    if x is None:
        return None
    a, left = _definite(g, x), g.random.random() < 0.5
    rows, other = a.shape.dims[-1], g.random.choice((1, 3, 7))
    sides = (rows, other) if left else (other, rows)
    return g.make("triangular-solve", a, g.like(array(F32, *a.shape.dims[:-2], *sides)), left_side=left,
                  lower=g.random.random() < 0.5, unit_diagonal=False,
                  transpose_a=g.random.choice(("NO_TRANSPOSE", "TRANSPOSE", "ADJOINT")))


@maker("fft")
def _fft(g: Generator) -> Instruction | None:
    """Forth or back, of one or two dimensions, of real or complex numbers."""
    x = g.pick(lambda s: s.rank > 0 and s.dtype in (F32, C64) and 0 < s.element_count <= 2000)
    if x is None:
        return None
    count = g.random.randint(1, min(2, x.shape.rank))
    lengths = x.shape.dims[-count:]
    if x.shape.dtype is F32:
        return g.make("fft", x, fft_type="RFFT", fft_length=lengths)
    if lengths[-1] > 1 and g.random.random() < 0.4:
        return g.make("fft", x, fft_type="IRFFT", fft_length=(*lengths[:-1], 2 * (lengths[-1] - 1)))
    return g.make("fft", x, fft_type=g.random.choice(("FFT", "IFFT")), fft_length=lengths)
