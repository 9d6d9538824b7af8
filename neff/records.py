"""JSON objects as frozen dataclasses: a field declares its key and kind once; reading and writing derive from that.

Reading reports the path of the value that breaks a rule. In strict mode (files of ours) an unknown key is an error;
otherwise (a vendor's files, whose keys are only partly published) it is skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass
from typing import Any, TypeVar, cast

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import NEFF_INVALID, CompileError

T = TypeVar("T")


class Violation(Exception):
    """A value that breaks its kind; path grows from the inside out while the error travels up."""

    def __init__(self, expects: str, value: Any) -> None:
        super().__init__(expects)
        self.what = f"expected {expects}, found {str(value)[:80]!r}"
        self.path: list[str] = []


@dataclass(frozen=True, slots=True)
class Kind:
    """What a JSON value may be. read: JSON to Python, raises Violation; write: Python to plain JSON."""

    read: Callable[[Any, bool], Any]
    write: Callable[[Any], Any]


def key(kind: Kind, default: Any = MISSING, name: str = "", default_factory: Any = MISSING, always: bool = False) -> Any:
    """A dataclass field held under a JSON key (its own name unless given).

    With a default the key is optional, and left out when the value is the default, unless always.
    """
    metadata = {"kind": kind, "key": name, "always": always}
    if default_factory is not MISSING:
        return dataclasses.field(default_factory=default_factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def rest(kind: Kind, keys: frozenset[str] | None = None) -> Any:
    """A dict field that takes the keys which no other field claims: these keys, or any."""
    return dataclasses.field(default_factory=dict, metadata={"kind": kind, "rest": True, "keys": keys})


def _plain(expects: str, types: tuple[type, ...], is_valid: Callable[[Any], bool] = lambda value: True) -> Kind:
    """A scalar that is the same in JSON and Python; bool is not an integer here."""

    def read(value: Any, strict: bool) -> Any:
        if type(value) not in types or not is_valid(value):
            raise Violation(expects, value)
        return value

    return Kind(read, lambda value: value)


TEXT = _plain("a text", (str,))
INT = _plain("an integer", (int,))
UINT = _plain("an integer of 0 or more", (int,), lambda value: 0 <= value < 1 << 63)
BOOL = _plain("true or false", (bool,))
NUMBER = _plain("a number", (int, float))
OBJECT = _plain("an object", (dict,))
VALUE = Kind(lambda value, strict: value, lambda value: value)


def choice(*words: str) -> Kind:
    return _plain("one of " + ", ".join(words), (str,), frozenset(words).__contains__)


def nullable(kind: Kind) -> Kind:
    """null (None) or the kind."""
    return Kind(lambda value, strict: None if value is None else kind.read(value, strict),
                lambda value: None if value is None else kind.write(value))


def array(kind: Kind, at_most: int | None = None) -> Kind:
    """A JSON array, a tuple in Python."""

    def read(value: Any, strict: bool) -> tuple[Any, ...]:
        if type(value) is not list or (at_most is not None and len(value) > at_most):
            raise Violation("an array" + (f" of at most {at_most}" if at_most is not None else ""), value)
        items: list[Any] = []
        try:
            for item in value:
                items.append(kind.read(item, strict))
        except Violation as violation:
            violation.path.append(f"[{len(items)}]")
            raise
        return tuple(items)

    return Kind(read, lambda value: [kind.write(item) for item in value])


def mapping(kind: Kind) -> Kind:
    """A JSON object with free keys, a dict in Python."""

    def read(value: Any, strict: bool) -> dict[str, Any]:
        if type(value) is not dict:
            raise Violation("an object", value)
        name, found = "", {}
        try:
            for name, item in value.items():
                found[name] = kind.read(item, strict)
        except Violation as violation:
            violation.path.append(f".{name}")
            raise
        return found

    return Kind(read, lambda value: {name: kind.write(item) for name, item in value.items()})


def record(cls: type[Any]) -> Kind:
    """A JSON object held as this dataclass, whose fields are all declared by `key` or `rest`.

    A method `fault() -> str` of the class, if there is one, says which rule between its fields is broken.
    """
    return Kind(lambda value, strict: _read_fields(cls, value, strict), record_to_json)


_NUMPY_NAMES = {row.numpy.name: row for row in dtypes.DTYPES if row.is_array}


def _read_dtype(value: Any, strict: bool) -> dtypes.DType:
    if type(value) is not str or value not in _NUMPY_NAMES:
        raise Violation("a data type, as numpy names it", value)
    return _NUMPY_NAMES[value]


DTYPE = Kind(_read_dtype, lambda value: value.numpy.name)


def record_to_json(value: Any) -> dict[str, Any]:
    """The plain object of a record; keys at their default are left out."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        kind: Kind = field.metadata["kind"]
        if "rest" in field.metadata:
            extra = {name: kind.write(part) for name, part in item.items()}
            assert not extra.keys() & {_key_of(other) for other in dataclasses.fields(value)}, "a reserved key"
            found |= extra
        elif field.metadata["always"] or item != _default_of(field):
            found[_key_of(field)] = kind.write(item)
    return found


def read_record(cls: type[T], value: Any, where: str, strict: bool = True) -> T:
    """The record that a parsed JSON value holds; NEFF_INVALID with the value's path."""
    try:
        return cast(T, _read_fields(cls, value, strict))
    except Violation as violation:
        path = "".join(reversed(violation.path)).removeprefix(".")
        raise CompileError(NEFF_INVALID, violation.what, f"{where}: {path}" if path else where) from None


def _read_fields(cls: type[Any], value: Any, strict: bool) -> Any:
    if type(value) is not dict:
        raise Violation("an object", value)
    fields = dataclasses.fields(cls)
    left = dict(value)
    found: dict[str, Any] = {}
    for field in fields:
        name = _key_of(field)
        if "rest" in field.metadata:
            continue
        if name not in left:
            if _default_of(field) is MISSING:
                raise Violation(f"a key {name!r}", ", ".join(value))
            continue
        found[field.name] = _read_key(field, name, left.pop(name), strict)
    for field in fields:
        if "rest" in field.metadata:
            names = [name for name in left if field.metadata["keys"] is None or name in field.metadata["keys"]]
            found[field.name] = {name: _read_key(field, name, left.pop(name), strict) for name in names}
    if strict and left:
        raise Violation(f"no key {next(iter(left))!r} in {cls.__name__}", next(iter(left.values())))
    made = cls(**found)
    fault = made.fault() if strict and hasattr(made, "fault") else ""
    if fault:
        raise Violation(fault, value)
    return made


def _read_key(field: Field[Any], name: str, value: Any, strict: bool) -> Any:
    try:
        return field.metadata["kind"].read(value, strict)
    except Violation as violation:
        violation.path.append(f".{name}")
        raise


def _key_of(field: Field[Any]) -> str:
    return field.metadata.get("key") or field.name


def _default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
