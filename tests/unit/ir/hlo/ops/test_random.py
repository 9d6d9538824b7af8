"""Random bits against values measured on XLA CPU, and published known answers of the ciphers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nxcc.ir import dtypes
from nxcc.ir.hlo.operator import ShapeError
from nxcc.ir.hlo.ops.random import philox, threefry
from nxcc.ir.shapes import Shape, array, tuple_of

from harness.one_instruction import instruction_on, result_of


def generated(algorithm: str, state: list[int], shape: Shape) -> tuple[list[int], Any]:
    words = np.array(state, np.uint64)
    advanced, bits = result_of("rng-bit-generator", words, algorithm=algorithm,
                               shape=tuple_of(array(dtypes.U64, len(state)), shape))
    return advanced.tolist(), bits


def test_threefry_known_answers() -> None:
    """From the authors' test vectors for threefry2x32, 20 rounds."""
    for key, counter, expected in [((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
                                   ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0))]:
        low, high = (np.array([word], np.uint32) for word in counter)
        assert tuple(int(word[0]) for word in threefry(key, low, high)) == expected


def test_philox_known_answers() -> None:
    """From the authors' test vectors for philox4x32, 10 rounds."""
    zero = np.zeros(1, np.uint64)
    assert [int(word[0]) for word in philox((0, 0), (zero,) * 4)] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def test_threefry_bits_are_those_of_xla() -> None:
    state, bits = generated("rng_three_fry", [1, 2], array(dtypes.U32, 6))
    assert bits[:3].tolist() == [43444564, 2150618427, 3979645651] and state == [1, 5]


def test_threefry_words_lie_along_a_halved_dimension() -> None:
    state, bits = generated("rng_three_fry", [0, 4], array(dtypes.U32, 11, 17))
    assert state == [0, 103]
    assert bits.ravel()[:6].tolist() == [2892874427, 2813178819, 1447157908, 239777021, 2772180201, 2882477498]
    _, flat = generated("rng_three_fry", [0, 4], array(dtypes.U32, 6))
    _, tall = generated("rng_three_fry", [0, 4], array(dtypes.U32, 2, 3))
    assert tall[0].tolist() == flat[::2].tolist() and tall[1].tolist() == flat[1::2].tolist()


def test_wide_and_narrow_elements_take_their_words() -> None:
    _, words = generated("rng_philox", [1, 2], array(dtypes.U32, 6))
    state, wide = generated("rng_philox", [1, 2], array(dtypes.U64, 3))
    assert wide.view(np.uint32).tolist() == words.tolist() and state == [1, 4]
    state, narrow = generated("rng_philox", [1, 2], array(dtypes.U8, 5))
    assert narrow.tolist() == (words[:5] & 0xFF).tolist() and state == [1, 4]


def test_philox_counter_carries_into_its_high_half() -> None:
    state, bits = generated("rng_philox", [1, 2**64 - 1, 3], array(dtypes.U32, 8))
    _, after = generated("rng_philox", [1, 0, 4], array(dtypes.U32, 4))
    assert state == [1, 1, 4] and bits[4:].tolist() == after.tolist()


def test_philox_without_high_half_counts_above_the_key() -> None:
    _, short = generated("rng_philox", [7, 2], array(dtypes.U32, 4))
    _, full = generated("rng_default", [7, 2, 7], array(dtypes.U32, 4))
    assert short.tolist() == full.tolist()


@pytest.mark.parametrize(("algorithm", "length"), [("rng_three_fry", 3), ("rng_philox", 4), ("rng_default", 1)])
def test_states_of_wrong_size_are_refused(algorithm: str, length: int) -> None:
    state = array(dtypes.U64, length)
    made = instruction_on("rng-bit-generator", state, algorithm=algorithm, shape=tuple_of(state, array(dtypes.U32, 2)))
    with pytest.raises(ShapeError, match="bytes"):
        made.operator.check(made)


def test_stateful_rng_is_the_same_every_time_and_in_range() -> None:
    low, high = np.float32(2), np.float32(3)
    first = result_of("rng", low, high, distribution="rng_uniform", shape=array(dtypes.F32, 1000))
    again = result_of("rng", low, high, distribution="rng_uniform", shape=array(dtypes.F32, 1000))
    assert first.tolist() == again.tolist() and 2 <= first.min() < 2.1 and 2.9 < first.max() <= 3
    normal = result_of("rng", np.float32(5), np.float32(2), distribution="rng_normal", shape=array(dtypes.F32, 4000))
    assert abs(normal.mean() - 5) < 0.2 and abs(normal.std() - 2) < 0.2
    numbers = result_of("rng", np.int32(-2), np.int32(3), distribution="rng_uniform", shape=array(dtypes.S32, 200))
    assert sorted(set(numbers.tolist())) == [-2, -1, 0, 1, 2]
