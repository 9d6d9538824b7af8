"""Damage to the bytes of a file, as storage and copies do it."""

import random


def damaged(content: bytes, random_numbers: random.Random) -> bytes:
    """Cut somewhere, or one or three bits changed."""
    if random_numbers.random() < 0.25:
        return content[:random_numbers.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(random_numbers.choice((1, 1, 3))):
        changed[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)
    return bytes(changed)
