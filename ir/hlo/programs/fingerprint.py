"""FarmHash Fingerprint64 of a byte string, by which TensorFlow puts strings into buckets.

Source: the published algorithm (farmhashna::Hash64, google/farmhash); fingerprints never change by its promise.
"""

from __future__ import annotations

_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_WORD = (1 << 64) - 1
_BLOCK = 64
_SEED = 81

Pair = tuple[int, int]


def fingerprint64(text: bytes) -> int:
    """The fingerprint, below 2^64."""
    size = len(text)
    if size <= 16:
        return _up_to_16(text)
    if size <= 32:
        return _up_to_32(text)
    return _up_to_64(text) if size <= _BLOCK else _long(text)


def _at(text: bytes, place: int) -> int:
    return int.from_bytes(text[place:place + 8], "little")


def _turn(value: int, amount: int) -> int:
    value &= _WORD
    return (value >> amount | value << (64 - amount)) & _WORD


def _mix(value: int) -> int:
    value &= _WORD
    return value ^ value >> 47


def _join(u: int, v: int, factor: int) -> int:
    a = _mix((u ^ v) * factor)
    return _mix(((v ^ a) & _WORD) * factor) * factor & _WORD


def _up_to_16(text: bytes) -> int:
    size = len(text)
    factor = _K2 + size * 2 & _WORD
    if size >= 8:
        a, b = _at(text, 0) + _K2 & _WORD, _at(text, size - 8)
        return _join(_turn(b, 37) * factor + a & _WORD, (_turn(a, 25) + b) * factor & _WORD, factor)
    if size >= 4:
        first, last = (int.from_bytes(part, "little") for part in (text[:4], text[-4:]))
        return _join(size + (first << 3), last, factor)
    if not size:
        return _K2
    y, z = text[0] + (text[size >> 1] << 8), size + (text[-1] << 2)
    return _mix(y * _K2 & _WORD ^ z * _K0 & _WORD) * _K2 & _WORD


def _halves(text: bytes, factor: int, first: int) -> tuple[int, int, int]:
    """Both halves of what is joined for up to 32 bytes, and the first word times its factor."""
    size = len(text)
    a, b = _at(text, 0) * first & _WORD, _at(text, 8)
    c, d = _at(text, size - 8) * factor & _WORD, _at(text, size - 16) * _K2 & _WORD
    return _turn(a + b, 43) + _turn(c, 30) + d & _WORD, a + _turn(b + _K2, 18) + c & _WORD, a


def _up_to_32(text: bytes) -> int:
    factor = _K2 + len(text) * 2 & _WORD
    left, right, _ = _halves(text, factor, _K1)
    return _join(left, right, factor)


def _up_to_64(text: bytes) -> int:
    size = len(text)
    factor = _K2 + size * 2 & _WORD
    y, right, a = _halves(text, factor, _K2)
    z = _join(y, right, factor)
    e, f = _at(text, 16) * factor & _WORD, _at(text, 24)
    g, h = (y + _at(text, size - 32)) * factor & _WORD, (z + _at(text, size - 24)) * factor & _WORD
    return _join(_turn(e + f, 43) + _turn(g, 30) + h & _WORD, e + _turn(f + a, 18) + g & _WORD, factor)


def _weak(text: bytes, place: int, a: int, b: int) -> Pair:
    w, x, y, z = (_at(text, place + 8 * k) for k in range(4))
    a = a + w & _WORD
    b = _turn(b + a + z, 21)
    c = a
    a = a + x + y & _WORD
    b += _turn(a, 44)
    return a + z & _WORD, b + c & _WORD


def _long(text: bytes) -> int:
    size = len(text)
    x, y = _SEED, _SEED * _K1 + 113 & _WORD
    z = _mix(y * _K2 + 113) * _K2 & _WORD
    v: Pair = (0, 0)
    w: Pair = (0, 0)
    x = x * _K2 + _at(text, 0) & _WORD
    end = (size - 1) // _BLOCK * _BLOCK
    for place in range(0, end, _BLOCK):
        x, y, z, v, w = _block(text, place, (x, y, z, v, w), _K1, 1)
    factor = _K1 + ((z & 0xFF) << 1) & _WORD
    tail = size - 1 & _BLOCK - 1
    first = w[0] + tail & _WORD
    v = (v[0] + first & _WORD, v[1])
    w = (first + v[0] & _WORD, w[1])
    x, y, z, v, w = _block(text, end + tail - 63, (x, y, z, v, w), factor, 9)
    return _join(_join(v[0], w[0], factor) + _mix(y) * _K0 + z & _WORD, _join(v[1], w[1], factor) + x & _WORD, factor)


def _block(text: bytes, place: int, state: tuple[int, int, int, Pair, Pair], factor: int, weight: int
           ) -> tuple[int, int, int, Pair, Pair]:
    """64 bytes more; weight: 1, and 9 for the last ones."""
    x, y, z, v, w = state
    x = _turn(x + y + v[0] + _at(text, place + 8), 37) * factor & _WORD
    y = _turn(y + v[1] + _at(text, place + 48), 42) * factor & _WORD
    x ^= w[1] * weight & _WORD
    y = y + v[0] * weight + _at(text, place + 40) & _WORD
    z = _turn(z + w[0], 33) * factor & _WORD
    v = _weak(text, place, v[1] * factor & _WORD, x + w[0] & _WORD)
    w = _weak(text, place + 32, z + w[1] & _WORD, y + _at(text, place + 16) & _WORD)
    return z, y, x, v, w
