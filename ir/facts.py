"""`dataclass` whose methods are written when they are first used.

The standard decorator compiles six methods for each class when it is imported; with two hundred declarations that was 80 ms of
every command, most of it for methods that a run never calls. Here a frozen class gets short stand-ins that put the real
method in their own place: the same as the standard one's, and as fast from the second call on. Everything else of
`dataclasses` (field, fields, replace, asdict) works on these classes; what is not frozen is left to the standard decorator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(field_specifiers=(field, Field))
def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """As `dataclasses.dataclass` with these options."""
    if not frozen:
        return dataclasses.dataclass(slots=slots, eq=eq)

    def decorate(cls: type[T]) -> type[T]:
        # The standard decorator allows a frozen class no bases that are not declared so, and the other way round.
        inherits = any(dataclasses.is_dataclass(base) for base in cls.__bases__)
        made: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=inherits, slots=slots)(cls)
        made.__dataclass_params__.frozen = True
        made.__init__ = _stand_in(made, "__init__", _init)
        if eq:
            made.__eq__ = _stand_in(made, "__eq__", _eq)
            made.__hash__ = _stand_in(made, "__hash__", _hash)
        if "__repr__" not in cls.__dict__:
            made.__repr__ = _repr
        made.__setattr__, made.__delattr__ = _refuse_setting, _refuse_deleting
        if slots:
            made.__getstate__, made.__setstate__ = _state, _restore
        return made  # type: ignore[no-any-return]

    return decorate


def _stand_in(cls: Any, name: str, write: Callable[[Any], Any]) -> Any:
    """A method that, called for the first time, puts the one that `write` makes in its place."""
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        real = write(cls)
        setattr(cls, name, real)
        return real(self, *args, **kwargs)

    method.__name__ = name
    return method


def _compiled(name: str, parameters: list[str], body: list[str], known: dict[str, Any]) -> Any:
    source = f"def {name}({', '.join(parameters)}):\n" + "".join(f" {line}\n" for line in body or ["pass"])
    exec(source, known)
    return known[name]


def _init(cls: Any) -> Any:
    """Sets each field to its argument or default, then calls __post_init__ if the class has one."""
    known: dict[str, Any] = {"set_": object.__setattr__, "missing": MISSING}
    parameters, body = ["self"], []
    for row in dataclasses.fields(cls):
        known[f"default_{row.name}"] = row.default
        known[f"factory_{row.name}"] = row.default_factory
        value = row.name
        if row.default_factory is not MISSING:
            value = f"factory_{row.name}() if {row.name} is missing else {row.name}"
        if row.init:
            has_default = row.default is not MISSING or row.default_factory is not MISSING
            parameters.append(f"{row.name}=default_{row.name}" if has_default else row.name)
        elif row.default_factory is not MISSING:
            value = f"factory_{row.name}()"
        else:
            continue
        body.append(f"set_(self, {row.name!r}, {value})")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    return _compiled("__init__", parameters, body, known)


def _tuple_of(owner: str, names: list[str]) -> str:
    return "(" + "".join(f"{owner}.{name}, " for name in names) + ")"


def _eq(cls: Any) -> Any:
    names = [row.name for row in dataclasses.fields(cls) if row.compare]
    body = ["if other.__class__ is not self.__class__: return NotImplemented",
            f"return {_tuple_of('self', names)} == {_tuple_of('other', names)}"]
    return _compiled("__eq__", ["self", "other"], body, {})


def _hash(cls: Any) -> Any:
    names = [row.name for row in dataclasses.fields(cls) if (row.compare if row.hash is None else row.hash)]
    return _compiled("__hash__", ["self"], [f"return hash({_tuple_of('self', names)})"], {})


def _repr(self: Any) -> str:
    rows = ", ".join(f"{row.name}={getattr(self, row.name)!r}" for row in dataclasses.fields(self) if row.repr)
    return f"{type(self).__qualname__}({rows})"


def _refuse_setting(self: Any, name: str, value: Any) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_deleting(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, row.name) for row in dataclasses.fields(self)]


def _restore(self: Any, state: list[Any]) -> None:
    for row, value in zip(dataclasses.fields(self), state, strict=True):
        object.__setattr__(self, row.name, value)
