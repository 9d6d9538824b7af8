"""Changes of element type: convert, copy, bitcast-convert, stochastic-convert, reduce-precision.

Narrow floats are rounded from f32; floats become integers by truncation toward zero, saturated. Source: HLO semantics notes,
section 1, measured on XLA CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.dtypes import DType, Kind
from nxcc.ir.hlo.attributes import (
    EXPONENT_BITS,
    MANTISSA_BITS,
)
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.checks import agreeing_dims
from nxcc.ir.hlo.ops.element_functions import UNSIGNED, WORKING, signed_bits_of, stored
from nxcc.ir.shapes import Shape

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
Rows = dict[Kind, Function]


def _saturated(x: Array, dtype: DType) -> Array:
    """Floats to integers: truncate toward zero, saturate, NaN to 0."""
    signed = dtype.is_signed
    bits = dtype.bits - signed
    limit, lowest = 2.0 ** bits, -(2.0 ** bits) if signed else 0.0
    storage = WORKING[dtype.numpy].type
    wide = x.astype(np.float64)
    inside = (wide < limit) & (wide > lowest)
    whole = np.where(inside, wide, 0.0).astype(WORKING[dtype.numpy])
    whole = np.where(wide >= limit, storage(2 ** bits - 1), whole)
    return np.where(wide <= lowest, storage(-(2 ** bits) if signed else 0), whole).astype(dtype.numpy)


def converted(x: Array, dtype: DType) -> Array:
    """The array in another element type, as HLO `convert` does it: wrap integers, saturate floats to integers, round floats."""
    source = dtypes.from_numpy(x.dtype)
    if source is dtype:
        return x
    if dtype is dtypes.PRED:
        return np.asarray(x.astype(WORKING[x.dtype], copy=False) != 0)
    if source.is_complex and not dtype.is_complex:
        return converted(np.asarray(x.real), dtype)
    if source.is_float and dtype.is_integer:
        return _saturated(x, dtype)
    narrow = dtype.is_float and dtype.bits < 32
    through = np.dtype(np.float32) if narrow else WORKING[dtype.numpy]
    return stored(x.astype(WORKING[x.dtype], copy=False).astype(through, copy=False), dtype)


def _check_convert(instruction: Instruction) -> None:
    source, result = instruction.operands[0].shape, instruction.shape
    if not source.is_array or not result.is_array:
        raise ShapeError(f"{instruction.opcode} is between arrays, not from {source} to {result}")
    if source.dims != result.dims:
        raise ShapeError(f"{instruction.opcode} keeps the dimensions: {source} cannot become {result}")


operator("convert", 1, check=_check_convert, elementwise=True,
         evaluate=lambda instruction, x: converted(x, instruction.shape.dtype))


def _copy_shape(x: Shape) -> Shape:
    return x


operator("copy", 1, shape=_copy_shape, evaluate=lambda instruction, x: x, elementwise=True, identity=True)


def _check_bitcast_convert(instruction: Instruction) -> None:
    source, result = instruction.operands[0].shape, instruction.shape
    if not source.is_array or not result.is_array:
        raise ShapeError(f"bitcast-convert is between arrays, not from {source} to {result}")
    if source.dtype.is_complex != result.dtype.is_complex:
        raise ShapeError(f"bitcast-convert is not between real and complex: {source.dtype} to {result.dtype}")
    wide, narrow = (source, result) if source.dtype.bits >= result.dtype.bits else (result, source)
    ratio = wide.dtype.bits // narrow.dtype.bits
    expected = wide.dims if ratio == 1 else (*wide.dims, ratio)
    if narrow.dims != expected or wide.dtype.bits % narrow.dtype.bits:
        raise ShapeError(f"bitcast-convert between {wide.dtype} and {narrow.dtype} pairs {wide} with dimensions "
                         f"{list(expected)}, not with {narrow}")


def _bitcast_whole_bytes(x: Array, result: Shape) -> Array:
    dtype = result.dtype.numpy
    if x.dtype.itemsize == dtype.itemsize:
        return x.view(dtype)
    contiguous = np.ascontiguousarray(x)
    if x.dtype.itemsize > dtype.itemsize:
        return contiguous.reshape(*x.shape, 1).view(dtype)
    return contiguous.view(dtype).reshape(x.shape[:-1])


def bitcast_bits(x: Array, source: DType, result: Shape) -> Array:
    """The sub-byte form: element bits in little-endian order, regrouped."""
    data = np.ascontiguousarray(x)
    octets = data.view(np.uint8).reshape(*data.shape, data.dtype.itemsize)
    bits = np.unpackbits(octets, axis=-1, bitorder="little")[..., :source.bits]
    regrouped = np.ascontiguousarray(bits).reshape(*result.dims, result.dtype.bits)
    packed = np.packbits(regrouped, axis=-1, bitorder="little")
    if result.dtype.is_signed and result.dtype.bits < 8:
        packed = signed_bits_of(result.dtype.bits, packed)
        return packed.reshape(result.dims).astype(result.dtype.numpy)
    return np.ascontiguousarray(packed).view(result.dtype.numpy).reshape(result.dims)


def _bitcast_convert(instruction: Instruction, x: Array) -> Array:
    source, result = instruction.operands[0].shape, instruction.shape
    if source.dtype.bits % 8 or result.dtype.bits % 8:
        return bitcast_bits(x, source.dtype, result)
    return _bitcast_whole_bytes(x, result)


operator("bitcast-convert", 1, check=_check_bitcast_convert, evaluate=_bitcast_convert)


def _check_stochastic(instruction: Instruction) -> None:
    _check_convert(instruction)
    source, random = (operand.shape for operand in instruction.operands)
    if not source.dtype.is_float or not random.dtype.is_unsigned or source.dtype.bits != random.dtype.bits:
        raise ShapeError(f"stochastic-convert takes floats and unsigned integers of their width, not {source} and {random}")
    agreeing_dims("stochastic-convert", (source, random))


def _neighbour_above(x: Array, low: Array, dtype: DType) -> Array:
    """The next value of the target type away from zero, given the one at or below |x|."""
    if dtype.is_integer:
        return low + 1
    pattern = converted(low, dtype)
    return np.asarray((pattern.view(UNSIGNED[pattern.dtype.itemsize]) + 1).view(pattern.dtype).astype(np.float64))


def _stochastic_convert(instruction: Instruction, x: Array, random: Array) -> Array:
    """Round |x| up with the probability of its place between neighbours: up when random < fraction * 2^width."""
    dtype = instruction.shape.dtype
    width = random.dtype.itemsize * 8
    magnitude = np.abs(x.astype(np.float64))
    nearest = converted(magnitude, dtype).astype(np.float64)
    low = np.floor(magnitude) if dtype.is_integer else _at_or_below(magnitude, nearest, dtype)
    high = _neighbour_above(x, low, dtype)
    with np.errstate(all="ignore"):
        fraction = np.where(np.isfinite(magnitude) & (high > low), (magnitude - low) / (high - low), 0.0)
    goes_up = random.astype(np.float64) < np.floor(fraction * 2.0 ** width)
    chosen = np.where(np.isfinite(magnitude), np.where(goes_up, high, low), magnitude)
    return converted(np.asarray(np.copysign(chosen, x.astype(np.float64))), dtype)


def _at_or_below(magnitude: Array, nearest: Array, dtype: DType) -> Array:
    pattern = converted(nearest, dtype)
    below = (pattern.view(UNSIGNED[pattern.dtype.itemsize]) - 1).view(pattern.dtype).astype(np.float64)
    return np.where(nearest > magnitude, below, nearest)


operator("stochastic-convert", 2, check=_check_stochastic, evaluate=_stochastic_convert, elementwise=True)


def _reduce_precision_shape(x: Shape, exponent_bits: int, mantissa_bits: int) -> Shape:
    if not x.dtype.is_float:
        raise ShapeError(f"reduce-precision takes float elements, not {x.dtype}")
    if exponent_bits < 1 or mantissa_bits < 0:
        raise ShapeError(f"reduce-precision needs an exponent bit and no negative mantissa, "
                         f"not e{exponent_bits}m{mantissa_bits}")
    return x


def reduced_precision(x: Array, exponent_bits: int, mantissa_bits: int) -> Array:
    """f32 or f64 rounded to a narrower format: nearest even, overflow to infinity, below the smallest normal to zero."""
    mantissa, exponent = (52, 11) if x.dtype == np.float64 else (23, 8)
    bits_type = UNSIGNED[x.dtype.itemsize]
    bits = x.view(bits_type)
    if mantissa_bits < mantissa:
        drop = mantissa - mantissa_bits
        last_kept = (bits >> bits_type(drop)) & bits_type(1)
        bits = ((bits + (bits_type((1 << (drop - 1)) - 1) + last_kept)) >> bits_type(drop)) << bits_type(drop)
    rounded = bits.view(x.dtype)
    if exponent_bits < exponent:
        bias = 2 ** (exponent_bits - 1) - 1
        magnitude = np.abs(rounded)
        rounded = np.where(magnitude >= x.dtype.type(2.0) ** (bias + 1), np.copysign(x.dtype.type(np.inf), x), rounded)
        rounded = np.where(magnitude < x.dtype.type(2.0) ** (1 - bias), np.copysign(x.dtype.type(0), x), rounded)
    return np.where(np.isnan(x), x, rounded)


def _reduce_precision(instruction: Instruction, x: Array) -> Array:
    exponent_bits, mantissa_bits = instruction.attribute("exponent_bits"), instruction.attribute("mantissa_bits")
    result = reduced_precision(x.astype(WORKING[x.dtype], copy=False), exponent_bits, mantissa_bits)
    return result.astype(instruction.shape.dtype.numpy, copy=False)


operator("reduce-precision", 1, attributes=(EXPONENT_BITS, MANTISSA_BITS), shape=_reduce_precision_shape,
         evaluate=_reduce_precision, elementwise=True)
