"""JSON objects as frozen dataclasses: a field declares its key and kind once; reading and writing derive from that.

Reading reports the path of the value that breaks a rule. In strict mode (files of ours) an unknown key is an error;
otherwise (a vendor's files, whose keys are only partly published) it is skipped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field
from functools import cache
from typing import Any, TypeVar, cast

from nxcc.ir import dtypes
from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.facts import dataclass

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


_NAMES = {row: name for name, row in _NUMPY_NAMES.items()}

DTYPE = Kind(_read_dtype, _NAMES.__getitem__)


@dataclass(frozen=True, slots=True)
class _Column:
    """How `record_to_json` writes a field, worked out once: attribute, JSON key, writer, and the default that is left out."""

    name: str
    key: str
    write: Callable[[Any], Any]
    default: Any
    always: bool
    is_rest: bool


@cache
def _columns(cls: Any) -> tuple[_Column, ...]:
    return tuple(_Column(field.name, _key_of(field), field.metadata["kind"].write, _default_of(field),
                         bool(field.metadata.get("always")), "rest" in field.metadata) for field in dataclasses.fields(cls))


def record_to_json(value: Any) -> dict[str, Any]:
    """The plain object of a record; keys at their default are left out."""
    found: dict[str, Any] = {}
    cls: Any = type(value)
    for column in _columns(cls):
        item = getattr(value, column.name)
        if column.is_rest:
            extra = {name: column.write(part) for name, part in item.items()}
            assert not extra.keys() & {other.key for other in _columns(cls)}, "a reserved key"
            found |= extra
        elif column.always or item != column.default:
            found[column.key] = column.write(item)
    return found


def read_record(cls: type[T], value: Any, where: str, strict: bool = True) -> T:
    """The record that a parsed JSON value holds; NEFF_INVALID with the value's path."""
    try:
        return cast(T, _read_fields(cls, value, strict))
    except Violation as violation:
        path = "".join(reversed(violation.path)).removeprefix(".")
        raise CompileError(NEFF_INVALID, violation.what, f"{where}: {path}" if path else where) from None


@dataclass(frozen=True, slots=True)
class _Schema:
    """What `_read_fields` needs of a class, worked out once. columns: JSON key to attribute and its reader."""

    columns: dict[str, tuple[str, Callable[[Any, bool], Any]]]
    required: frozenset[str]
    rest: Field[Any] | None
    has_rules: bool


@cache
def _schema(cls: Any) -> _Schema:
    keys = [field for field in dataclasses.fields(cls) if "rest" not in field.metadata]
    rests = [field for field in dataclasses.fields(cls) if "rest" in field.metadata]
    return _Schema(
        {_key_of(field): (field.name, field.metadata["kind"].read) for field in keys},
        frozenset(_key_of(field) for field in keys if _default_of(field) is MISSING),
        rests[0] if rests else None, hasattr(cls, "fault"),
    )


def _read_fields(cls: Any, value: Any, strict: bool) -> Any:
    if type(value) is not dict:
        raise Violation("an object", value)
    schema = _schema(cls)
    missing = schema.required - value.keys()
    if missing:
        raise Violation(f"a key {min(missing)!r}", ", ".join(value))
    found: dict[str, Any] = {}
    left: dict[str, Any] = {}
    name = ""
    try:
        for name, item in value.items():
            column = schema.columns.get(name)
            if column is None:
                left[name] = item
            else:
                found[column[0]] = column[1](item, strict)
    except Violation as violation:
        violation.path.append(f".{name}")
        raise
    if left:
        found |= _read_rest(cls, schema.rest, left, strict)
    made = cls(**found)
    fault = made.fault() if strict and schema.has_rules else ""
    if fault:
        raise Violation(fault, value)
    return made


def _read_rest(cls: type[Any], field: Field[Any] | None, left: dict[str, Any], strict: bool) -> dict[str, Any]:
    """The `rest` field from the keys that no other field claims; what it does not take is an error in strict mode."""
    keys = frozenset[str]() if field is None else field.metadata["keys"]
    unknown = [] if keys is None else [name for name in left if name not in keys]
    if strict and unknown:
        raise Violation(f"no key {unknown[0]!r} in {cls.__name__}", left[unknown[0]])
    if field is None:
        return {}
    return {field.name: mapping(field.metadata["kind"]).read(
        {name: item for name, item in left.items() if name not in unknown}, strict)}


def _key_of(field: Field[Any]) -> str:
    return field.metadata.get("key") or field.name


def _default_of(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
