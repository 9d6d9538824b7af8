"""Random numbers: the counter-based generators bit for bit, and the stateful ones of old modules.

Threefry-2x32 and Philox-4x32 follow Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); how XLA forms
counters and orders words is in the HLO semantics notes, section 10. The stateful `rng` and `rng-get-and-update-state` differ
from run to run in XLA; here the first is drawn from Philox with the instruction's name as its key, so that a module gives the
same answer every time, here and on the device.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from nxcc.ir import dtypes
from nxcc.ir.hlo.attributes import DELTA, DISTRIBUTION, RNG_ALGORITHM
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import ShapeError, operator
from nxcc.ir.hlo.ops.conversion import converted
from nxcc.ir.shapes import Shape, array

Array = np.ndarray[Any, Any]

_WORD = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)

# Threefry-2x32, 20 rounds
_PARITY = np.uint32(0x1BD11BDA)
_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _rotated(x: Array, places: int) -> Array:
    return np.asarray((x << np.uint32(places)) | (x >> np.uint32(32 - places)))


def threefry(key: tuple[int, int], low: Array, high: Array) -> tuple[Array, Array]:
    """Encrypt counters (low, high words, u32) with a two-word key; returns both output words."""
    with np.errstate(over="ignore"):
        first, second = np.uint32(key[0]), np.uint32(key[1])
        keys = (first, second, _PARITY ^ first ^ second)
        x0, x1 = low + keys[0], high + keys[1]
        for group in range(5):
            for places in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = _rotated(x1, places) ^ x0
            x0 = x0 + keys[(group + 1) % 3]
            x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


# Philox-4x32, 10 rounds
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_BUMPS = (0x9E3779B9, 0xBB67AE85)


def philox(key: tuple[int, int], counter: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
    """Encrypt four-word counters (u64 arrays holding 32-bit words) with a two-word key; returns four output words."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ np.uint64(k0), p1 & _WORD, (p0 >> _HALF) ^ c3 ^ np.uint64(k1), p0 & _WORD
        k0, k1 = (k0 + _BUMPS[0]) & 0xFFFFFFFF, (k1 + _BUMPS[1]) & 0xFFFFFFFF
    return c0, c1, c2, c3


def _words(value: int) -> tuple[int, int]:
    return value & 0xFFFFFFFF, value >> 32


def _state_words(state: Array) -> list[int]:
    """The state as u64 numbers; u32 states are joined, low word first."""
    return [int(word) for word in np.ascontiguousarray(state).view(np.uint64)]


def _halved_dimension(dims: tuple[int, ...]) -> int:
    """The dimension along which the two words of a block lie: the first of even size, else the first of the largest size."""
    even = [d for d, size in enumerate(dims) if size % 2 == 0]
    return even[0] if even else max(range(len(dims)), key=lambda d: (dims[d], -d))


def _threefry_blocks(state: list[int], dims: tuple[int, ...]) -> tuple[Array, Array]:
    """Both words of a block for each place of an array, counted in row-major order."""
    counters = np.uint64(state[1]) + np.arange(math.prod(dims), dtype=np.uint64).reshape(dims)
    return threefry(_words(state[0]), (counters & _WORD).astype(np.uint32), (counters >> _HALF).astype(np.uint32))


def _threefry_bits(state: list[int], dims: tuple[int, ...], wide: bool) -> tuple[Array, int]:
    """Bits for an array, and the blocks used. State: {key, counter}.

    64-bit elements take a block each. For narrower ones one dimension is halved (rounded up), and the block at each place
    of the halved array gives two neighbours along it; of an odd size the last word is dropped.
    """
    if wide:
        low, high = _threefry_blocks(state, dims)
        return low.astype(np.uint64) | high.astype(np.uint64) << _HALF, math.prod(dims)
    full = dims or (1,)
    d = _halved_dimension(full)
    half = (*full[:d], -(-full[d] // 2), *full[d + 1:])
    pairs = np.stack(_threefry_blocks(state, half), axis=d + 1).reshape(*full[:d], 2 * half[d], *full[d + 1:])
    return np.take(pairs, range(full[d]), d).reshape(dims), math.prod(half)


def _philox_bits(state: list[int], dims: tuple[int, ...], wide: bool) -> tuple[Array, int]:
    """Bits for an array in row-major order, and the blocks used. State: {key, counter low[, counter high]}.

    64-bit elements take two words, low word first. Without a high half in the state the counter's high half is the key.
    """
    key, low = state[:2]
    high = state[2] if len(state) > 2 else key
    count = math.prod(dims) * (2 if wide else 1)
    blocks = -(-count // 4)
    lows = np.uint64(low) + np.arange(blocks, dtype=np.uint64)
    highs = np.uint64(high) + (lows < np.uint64(low)).astype(np.uint64)
    quads = philox(_words(key), (lows & _WORD, lows >> _HALF, highs & _WORD, highs >> _HALF))
    words = np.stack(quads, axis=-1).reshape(-1)[:count].astype(np.uint32)
    return (words.view(np.uint64) if wide else words).reshape(dims), blocks


def _advanced(state: list[int], blocks: int) -> list[int]:
    """The state with its counter, the words after the key, grown by the blocks used."""
    counter = sum(word << (64 * place) for place, word in enumerate(state[1:])) + blocks
    return [state[0], *((counter >> (64 * place)) & (2**64 - 1) for place in range(len(state) - 1))]


_GENERATORS: dict[str, Callable[[list[int], tuple[int, ...], bool], tuple[Array, int]]] = {
    "rng_three_fry": _threefry_bits, "rng_philox": _philox_bits, "rng_default": _philox_bits}
_STATE_BYTES = {"rng_three_fry": (16,), "rng_philox": (16, 24), "rng_default": (16, 24)}


def _bits_shape(instruction: Instruction) -> Shape:
    """The shape of the bits: the second element, or the whole result in the form without a state."""
    return instruction.shape.elements[1] if instruction.shape.is_tuple else instruction.shape


def _check_bit_generator(instruction: Instruction) -> None:
    state, result = instruction.operands[0].shape, instruction.shape
    algorithm = instruction.attribute("algorithm")
    if algorithm not in _GENERATORS:
        raise ShapeError(f"rng-bit-generator has no algorithm {algorithm}")
    if not state.dtype.is_unsigned or state.rank != 1 or state.byte_size not in _STATE_BYTES[algorithm]:
        sizes = " or ".join(map(str, _STATE_BYTES[algorithm]))
        raise ShapeError(f"rng-bit-generator with {algorithm} takes a state of {sizes} bytes, not {state}")
    if result.is_tuple and (len(result.elements) != 2 or result.elements[0] != state):
        raise ShapeError(f"rng-bit-generator returns the state {state} and the bits, not {result}")
    bits = _bits_shape(instruction)
    if not bits.dtype.is_integer or bits.dtype.bits < 8:
        raise ShapeError(f"rng-bit-generator makes integers of 8 to 64 bits, not {bits}")


def _bit_generator(instruction: Instruction, state: Array) -> Any:
    """Elements of 8 and 16 bits are the low bits of a 32-bit word each."""
    shape, words = _bits_shape(instruction), _state_words(state)
    bits, blocks = _GENERATORS[instruction.attribute("algorithm")](words, shape.dims, shape.dtype.bits == 64)
    bits = bits.astype(shape.dtype.numpy)
    if not instruction.shape.is_tuple:
        return bits
    return np.array(_advanced(words, blocks), np.uint64).view(state.dtype), bits


operator("rng-bit-generator", 1, attributes=(RNG_ALGORITHM,), check=_check_bit_generator, evaluate=_bit_generator)


# The stateful generators

def key_of(instruction: Instruction) -> int:
    """What tells the numbers of one instruction from those of another."""
    return zlib.crc32(instruction.name.encode())


def _drawn_bits(instruction: Instruction, dims: tuple[int, ...], wide: bool = False) -> Array:
    return _philox_bits([key_of(instruction), 0], dims, wide)[0]


def _places(bits: Array) -> Array:
    """From 0 to 1 in steps of 2^-23, f32."""
    return np.asarray((bits >> np.uint32(9)).astype(np.float32) * np.float32(2.0**-23))


def _uniform(instruction: Instruction, low: Array, high: Array) -> Array:
    """Floats: low + place * (high - low), in f32 or wider; whole numbers: low + the upper half of bits * (high - low)."""
    dtype, dims = instruction.shape.dtype, instruction.shape.dims
    if dtype is dtypes.PRED:
        return np.asarray((_drawn_bits(instruction, dims) & np.uint32(1)).astype(np.bool_))
    if dtype.is_integer:
        bits = _drawn_bits(instruction, dims, dtype.bits == 64).astype(object)
        steps = bits * max(int(high) - int(low), 1) >> max(dtype.bits, 32)
        return np.asarray(int(low) + steps, object).astype(np.uint64 if dtype is dtypes.U64 else np.int64).astype(dtype.numpy)
    wide = _wider(dtype)
    first, last = wide(low), wide(high)
    return converted(np.asarray(first + _places(_drawn_bits(instruction, dims)).astype(wide) * (last - first)), dtype)


def _normal(instruction: Instruction, mean: Array, deviation: Array) -> Array:
    """mean + drawn * deviation, from two words a number (Box and Muller, 1958)."""
    wide = _wider(instruction.shape.dtype)
    one, other = (_places(words) for words in _drawn_bits(instruction, (2, *instruction.shape.dims)))
    drawn = np.sqrt(-2 * np.log1p(-one.astype(np.float64))) * np.cos(2 * np.pi * other.astype(np.float64))
    return converted(np.asarray(wide(mean) + drawn.astype(wide) * wide(deviation)), instruction.shape.dtype)


def _wider(dtype: dtypes.DType) -> type[np.floating[Any]]:
    return np.float64 if dtype is dtypes.F64 else np.float32


_DISTRIBUTIONS = {"rng_uniform": _uniform, "rng_normal": _normal}


def _check_rng(instruction: Instruction) -> None:
    distribution = instruction.attribute("distribution")
    if distribution not in _DISTRIBUTIONS:
        raise ShapeError(f"rng has no distribution {distribution}")
    if len(instruction.operands) != 2 or any(operand.shape.rank for operand in instruction.operands):
        raise ShapeError("rng takes two scalars: the bounds, or mean and deviation")
    shape = instruction.shape
    if not shape.is_array or shape.dtype.is_complex or (distribution == "rng_normal" and not shape.dtype.is_float):
        raise ShapeError(f"rng with {distribution} cannot make {shape}")


def _rng(instruction: Instruction, first: Array, second: Array) -> Array:
    return _DISTRIBUTIONS[instruction.attribute("distribution")](instruction, first, second)


operator("rng", (0, None), attributes=(DISTRIBUTION,), side_effect=True, check=_check_rng, evaluate=_rng)

_FIRST_STATE = 0x7012395
"""Low word of the generator state before anything was drawn; arbitrary."""


def _state_shape(delta: int) -> Shape:
    return array(dtypes.U64, 2)


def first_state(instruction: Instruction) -> Array:
    """The state before the update. Each instruction has its own, as if it ran alone."""
    return np.array([_FIRST_STATE, key_of(instruction)], np.uint64)[:math.prod(instruction.shape.dims)]


operator("rng-get-and-update-state", 0, attributes=(DELTA,), side_effect=True, shape=_state_shape,
         evaluate=first_state)
