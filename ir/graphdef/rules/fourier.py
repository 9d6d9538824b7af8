"""Discrete Fourier transforms over the last one, two or three dimensions."""

from __future__ import annotations

import re

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction

_NAME = re.compile(r"(?:Batch)?(I?R?FFT)([23]?)D?$")
_COMPLEX = tuple(f"{batch}{kind}{dims}" for kind in ("FFT", "IFFT") for dims in ("", "2D", "3D") for batch in ("", "Batch"))
_REAL = tuple(f"{kind}{dims}" for kind in ("RFFT", "IRFFT") for dims in ("", "2D", "3D"))


def _kind(call: Call) -> tuple[str, int]:
    """HLO's name of the transform, and over how many dimensions it goes."""
    found = _NAME.match(call.node.op)
    assert found is not None
    dims = int(found[2] or 1)
    call.need(call.x(0).shape.rank >= dims, f"{call.x(0).shape} has fewer than {dims} dimensions")
    return found[1], dims


@rule(*_COMPLEX, needs=("fft",))
def transform(call: Call) -> Value:
    kind, dims = _kind(call)
    x = call.x(0)
    return call.emit.make("fft", x, fft_type=kind, fft_length=x.shape.dims[-dims:])


def _fitted(e: Emitter, x: Instruction, sizes: tuple[int, ...]) -> Instruction:
    """The last dimensions cut or filled up with zeros to these sizes."""
    kept = x.shape.rank - len(sizes)
    own = x.shape.dims
    x = e.slice(x, [0] * x.shape.rank, [*own[:kept], *map(min, own[kept:], sizes)])
    more = [n - m for n, m in zip(sizes, x.shape.dims[kept:], strict=True)]
    return e.pad(x, e.scalar(x.shape.dtype, 0), [0] * x.shape.rank, [*[0] * kept, *more])


@rule(*_REAL, needs=("fft",), ranks=(None, 1))
def real_transform(call: Call) -> Value:
    """From or to real values; of those of a complex side only half of the last dimension is kept."""
    e, (kind, dims) = call.emit, _kind(call)
    length = tuple(call.ints(1))
    call.need(len(length) == dims and min(length) > 0, f"fft_length {list(length)} must be {dims} positive numbers")
    sizes = length if kind == "RFFT" else (*length[:-1], length[-1] // 2 + 1)
    return e.make("fft", _fitted(e, call.x(0), sizes), fft_type=kind, fft_length=length)
