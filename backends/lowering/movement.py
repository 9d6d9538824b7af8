"""Data movement that strides cannot express: copies, padding, concatenation, index patterns."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.backends.isa.program import Engine
from nxcc.backends.lowering.counting import Counter, count_reason
from nxcc.backends.lowering.registry import rule
from nxcc.backends.target import Target
from nxcc.backends.tile.builder import Kernel
from nxcc.backends.tile.program import View
from nxcc.ir.hlo.module import Instruction


@rule("copy", "reshape")
def lower_copy(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Move the elements in row-major order; the result is contiguous, so it takes the operand's sizes."""
    source, result = operands[0], results[0]
    target = result if result.sizes == source.sizes else result.reshape(source.sizes)
    assert target is not None
    kernel.dma(target, source)


@rule("concatenate")
def lower_concatenate(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Each operand is copied into its part of the result."""
    dim = instruction.attribute("dimensions")[0]
    start = 0
    for operand in operands:
        size = operand.sizes[dim]
        kernel.dma(results[0].cut(dim, start, size), operand)
        start += size


@rule("pad")
def lower_pad(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """Fill the result with the padding value, then copy what of the operand lies inside."""
    data, value, result = operands[0], operands[1], results[0]
    kernel.dma(result, View(value.memory, value.dtype, value.address, tuple((0, size) for size in result.sizes)))
    for dim, padding in enumerate(instruction.attribute("padding")):
        step = padding.interior + 1
        first = max(0, -(padding.low // step))
        stop = min(data.sizes[dim], (result.sizes[dim] - 1 - padding.low) // step + 1)
        size = max(0, stop - first)
        data = data.cut(dim, first if size else 0, size)
        result = result.cut(dim, padding.low + first * step if size else 0, size, step)
    if data.elements:
        kernel.dma(result, data)


def _iota_unsupported(instruction: Instruction, target: Target) -> str | None:
    return count_reason(instruction.shape.dims[instruction.attribute("iota_dimension")], target)


@rule("iota", unsupported=_iota_unsupported)
def lower_iota(kernel: Kernel, instruction: Instruction, operands: Sequence[View], results: Sequence[View]) -> None:
    """One row of counts, made by GpSimd or counted up by Vector, repeated by the store."""
    result = results[0]
    dim = instruction.attribute("iota_dimension")
    size = result.sizes[dim]
    counted = None if Engine.GPSIMD in kernel.target.engines else Counter(kernel)
    for start, count in kernel.tiles(size, 4096):
        row = kernel.sbuf((1, count), result.dtype)
        if counted is None:
            kernel.iota(row, start, (1,))
        else:
            counted.next(row)
        part = result.cut(dim, start, count)
        line = row.linear().dims[-1][0]
        dims = tuple((line if d == dim else 0, n) for d, n in enumerate(part.sizes))
        view = row.linear()
        kernel.dma(part, View(view.memory, view.dtype, view.address, dims))


