"""JSON as the container holds it: one canonical way to write it, one bounded way to read it.

Canonical: UTF-8, keys sorted, no blanks, one trailing newline, no `\\u` escapes, floats only under keys that the caller
names. Source: NEFF reference, section 7.3, "Serialisation".
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from nxcc.ir.diagnostics import NEFF_INVALID, CompileError

MAX_BYTES = 64 << 20
MAX_DEPTH = 32

_CONTAINERS = frozenset((dict, list, tuple))
_PLAIN = frozenset((str, int, bool, type(None), float)) | _CONTAINERS
_CONTROL_ESCAPE = re.compile(r"\\\\|\\u00([01][0-9a-f])")
_CONTROL_PICTURES = 0x2400


def dump_json(value: dict[str, Any], float_keys: frozenset[str] = frozenset()) -> bytes:
    """Serialise a plain object; lists and tuples are arrays.

    float_keys: keys that may hold a float. Control characters that JSON can only write as `\\u00XX` become their
    Unicode control picture, because a runtime of 2022 failed on such escapes.
    """
    _assert_plain(value, float_keys)
    text = _dump(value)
    if "\\u" in text:
        # A picture sorts elsewhere than its character, so keys are put in order again.
        text = _dump(json.loads(_CONTROL_ESCAPE.sub(_control_picture, text), object_pairs_hook=_unique_keys))
    return text.encode() + b"\n"


def _dump(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _control_picture(match: re.Match[str]) -> str:
    return chr(_CONTROL_PICTURES + int(match[1], 16)) if match[1] else match[0]


def _assert_plain(value: dict[str, Any], float_keys: frozenset[str]) -> None:
    """Assert types, keys and depth, a level at a time, so that the cost is per container and not per value."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        deeper: list[Any] = []
        for container in level:
            is_object = type(container) is dict
            values = container.values() if is_object else container
            kinds = set(map(type, values))
            assert kinds <= _PLAIN, f"not JSON: {kinds - _PLAIN} in {str(container)[:200]}"
            if is_object:
                assert set(map(type, container)) <= {str}, f"a key is no text in {str(container)[:200]}"
            if float in kinds:
                assert is_object, f"a float is not allowed in {str(container)[:200]}"
                loose = {key for key, item in container.items() if type(item) is float} - float_keys
                assert not loose, f"floats are not allowed under {sorted(loose)}"
            if kinds & _CONTAINERS:
                deeper += [item for item in values if type(item) in _CONTAINERS]
        level = deeper
    assert not level, f"nested deeper than {MAX_DEPTH}"


def load_json(data: memoryview | bytes, where: str) -> dict[str, Any]:
    """Parse one member, whose top level must be an object; NEFF_INVALID for anything that is not bounded plain JSON.

    Refused: more than 64 MiB, deeper than 32, text that is not UTF-8, duplicate keys, NaN and infinities,
    lone surrogates.
    """
    if len(data) > MAX_BYTES:
        raise CompileError(NEFF_INVALID, f"JSON member of {len(data)} bytes", where, why=f"the limit is {MAX_BYTES}")
    try:
        text = bytes(data).decode()
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise _too_deep(where) from None
    except ValueError as error:
        raise CompileError(NEFF_INVALID, "member is not plain JSON", where, why=str(error)) from None
    if type(value) is not dict:
        raise CompileError(NEFF_INVALID, "JSON member is not an object", where)
    _check_depth(value, where)
    return value


def _check_depth(value: dict[str, Any], where: str) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if type(container) is dict else container)
            if type(item) in _CONTAINERS
        ]
        if not level:
            return
    raise _too_deep(where)


def _too_deep(where: str) -> CompileError:
    return CompileError(NEFF_INVALID, "JSON is nested too deeply", where, why=f"the limit is {MAX_DEPTH}")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return value


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is out of range")
    return value
