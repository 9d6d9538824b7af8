"""Random bits on the device, bit for bit as the oracle has them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.device import check_text

SIZES = ("", "1", "2", "5", "7,3", "4,3", "3,5,7", "3,4,5", "300,3", "1001", "5,6,300", "1,257,3")
STATES = ((1, 2), (2**64 - 1, 2**64 - 3), (123456789012345, 2**32 - 2))
"""Counters that carry into the next words within a few blocks, and one that does not."""


def module(algorithm: str, state: int, bits: str) -> str:
    return (f"HloModule m\nENTRY main {{\n  s = u64[{state}] parameter(0)\n"
            f"  ROOT r = (u64[{state}], {bits}) rng-bit-generator(s), algorithm={algorithm}\n}}\n")


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("name", ("u32", "u8", "s16", "u64"))
def test_threefry_matches(name: str, dims: str) -> None:
    for state in STATES:
        check_text(module("rng_three_fry", 2, f"{name}[{dims}]"), [np.array(state, np.uint64)])


@pytest.mark.parametrize("dims", SIZES)
@pytest.mark.parametrize("name", ("u32", "u8", "u64"))
def test_philox_matches(name: str, dims: str) -> None:
    check_text(module("rng_philox", 2, f"{name}[{dims}]"), [np.array(STATES[2], np.uint64)])
    check_text(module("rng_default", 3, f"{name}[{dims}]"), [np.array((*STATES[1], 2**64 - 1), np.uint64)])


def test_bits_without_a_state() -> None:
    check_text("HloModule m\nENTRY main {\n  s = u64[2] parameter(0)\n"
               "  ROOT r = u32[9,130] rng-bit-generator(s), algorithm=rng_three_fry\n}\n", [np.array((5, 6), np.uint64)])
