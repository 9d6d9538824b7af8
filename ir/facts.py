"""`dataclass` whose methods and fields are made when they are first used.

The standard decorator compiles up to eight methods for each class when it is imported; with four hundred declarations that was
a quarter of a short compile, most of it for methods that a run never calls. Here a class gets short stand-ins that put the real
method in their own place: the same as the standard one's, and as fast from the second call on. Its fields are read when
`dataclasses` (fields, replace, asdict, ..) asks for them. Class variables, keyword-only fields and InitVar are not understood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, field
from typing import Any, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def dataclass(cls: type[T], /) -> type[T]: ...


@overload
def dataclass(*, frozen: bool = False, slots: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...


@dataclass_transform(field_specifiers=(field, Field))
def dataclass(cls: Any = None, /, *, frozen: bool = False, slots: bool = False, eq: bool = True) -> Any:
    """As `dataclasses.dataclass` with these options."""
    def decorate(cls: Any) -> Any:
        names = list(cls.__dict__.get("__annotations__", ()))
        declared = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        made = _with_slots(cls, names) if slots else cls
        if not slots:
            _keep_defaults(made, declared)
        made.__dataclass_fields__ = _OnDemand("__dataclass_fields__", declared)
        made.__dataclass_params__ = _OnDemand("__dataclass_params__", declared, frozen=frozen, eq=eq)
        _add_methods(made, frozen, eq)
        if frozen and slots:
            made.__getstate__, made.__setstate__ = _state, _restore
        return made

    return decorate if cls is None else decorate(cls)


def _add_methods(cls: Any, frozen: bool, eq: bool) -> None:
    """Stand-ins for what the class does not write itself."""
    own = cls.__dict__
    cls.__init__ = _stand_in(cls, "__init__", _frozen_init if frozen else _init)
    if "__repr__" not in own:
        cls.__repr__ = _repr
    if eq:
        if "__eq__" not in own:
            cls.__eq__ = _stand_in(cls, "__eq__", _eq)
        if own.get("__hash__") is None:
            cls.__hash__ = _stand_in(cls, "__hash__", _hash) if frozen else None
    if frozen:
        cls.__setattr__, cls.__delattr__ = _refuse_setting, _refuse_deleting


def _keep_defaults(cls: Any, declared: dict[str, Any]) -> None:
    """Leave plain defaults as the class's attributes, as the standard decorator does."""
    for name, value in declared.items():
        if isinstance(value, Field):
            if value.default is MISSING:
                delattr(cls, name)
            else:
                setattr(cls, name, value.default)


def _with_slots(cls: Any, names: list[str]) -> Any:
    """The class again, with slots for its own fields in the place of their defaults."""
    rows = {name: value for name, value in cls.__dict__.items() if name not in (*names, "__dict__", "__weakref__")}
    inherited = {name for base in cls.__mro__[1:] for name in base.__dict__.get("__slots__", ())}
    rows["__slots__"] = tuple(name for name in names if name not in inherited)
    made = type(cls)(cls.__name__, cls.__bases__, rows)
    made.__qualname__ = cls.__qualname__
    return made


class _OnDemand:
    """A class attribute of `dataclasses` that is made when it is read. declared: what the class body gave for each field."""

    def __init__(self, name: str, declared: dict[str, Any], **options: bool) -> None:
        self.name, self.declared, self.options = name, declared, options

    def __get__(self, instance: object, cls: Any) -> Any:
        owner = next(base for base in cls.__mro__ if base.__dict__.get(self.name) is self)
        # The standard decorator reads a class of the same fields, whose methods nobody needs.
        rows = {"__annotations__": owner.__dict__.get("__annotations__", {}), "__doc__": "-", "__module__": owner.__module__}
        read: Any = type(owner.__name__, (), rows | self.declared)
        found: Any = getattr(dataclasses.dataclass(init=False, repr=False, **{"eq": False, **self.options})(read), self.name)
        if self.name == "__dataclass_fields__":
            bases = [base.__dataclass_fields__ for base in reversed(owner.__bases__) if dataclasses.is_dataclass(base)]
            found = {name: row for fields in (*bases, found) for name, row in fields.items()}
        setattr(owner, self.name, found)
        return found

    def fields(self, owner: Any) -> dict[str, Field[Any]]:
        """What methods need to know of the owner's own fields; quicker than asking `dataclasses`."""
        found = {}
        for name in owner.__dict__.get("__annotations__", ()):
            value = self.declared.get(name, MISSING)
            row = found[name] = value if isinstance(value, Field) else field(default=value)
            row.name = name
        return found


def _fields(cls: Any) -> list[Field[Any]]:
    """The fields of a class, those of its bases first."""
    found: dict[str, Field[Any]] = {}
    for base in reversed(cls.__mro__):
        own = base.__dict__.get("__dataclass_fields__", {})
        found |= own.fields(base) if isinstance(own, _OnDemand) else own
    return list(found.values())


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


def _init(cls: Any, setting: str = "self.{0} = {1}") -> Any:
    """Sets each field to its argument or default, then calls __post_init__ if the class has one."""
    known: dict[str, Any] = {"set_": object.__setattr__, "missing": MISSING}
    parameters, body = ["self"], []
    for row in _fields(cls):
        known[f"default_{row.name}"] = row.default
        known[f"factory_{row.name}"] = row.default_factory
        value = row.name
        if row.default_factory is not MISSING:
            value = f"factory_{row.name}() if {row.name} is missing else {row.name}"
        if row.init:
            parameters.append(f"{row.name}={_default_of(row)}" if _default_of(row) else row.name)
        elif row.default_factory is not MISSING:
            value = f"factory_{row.name}()"
        elif row.default is not MISSING:
            value = f"default_{row.name}"
        else:
            continue
        body.append(setting.format(row.name, value))
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    return _compiled("__init__", parameters, body, known)


def _default_of(row: Field[Any]) -> str:
    """The parameter's default in the text of __init__; empty if it has none."""
    if row.default_factory is not MISSING:
        return "missing"
    return "" if row.default is MISSING else f"default_{row.name}"


def _frozen_init(cls: Any) -> Any:
    return _init(cls, "set_(self, {0!r}, {1})")


def _tuple_of(owner: str, names: list[str]) -> str:
    return "(" + "".join(f"{owner}.{name}, " for name in names) + ")"


def _eq(cls: Any) -> Any:
    names = [row.name for row in _fields(cls) if row.compare]
    body = ["if other.__class__ is not self.__class__: return NotImplemented",
            f"return {_tuple_of('self', names)} == {_tuple_of('other', names)}"]
    return _compiled("__eq__", ["self", "other"], body, {})


def _hash(cls: Any) -> Any:
    names = [row.name for row in _fields(cls) if (row.compare if row.hash is None else row.hash)]
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
