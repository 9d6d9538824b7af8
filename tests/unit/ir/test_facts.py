"""Facts behave as the standard frozen dataclasses do."""

import copy
import dataclasses
import pickle
from dataclasses import field
from functools import cached_property

import pytest

from nxcc.ir.facts import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 2
    tags: tuple[str, ...] = ()
    note: str = field(default="", compare=False)


@dataclass(frozen=True)
class Row:
    name: str
    parts: list[int] = field(default_factory=list)
    made: int = field(init=False, default=7)

    def __post_init__(self):
        assert self.name != "bad"

    @cached_property
    def size(self):
        return len(self.parts)


@dataclass(frozen=True)
class Longer(Row):
    extra: str = "e"


@dataclass(frozen=True, eq=False)
class One:
    name: str


@dataclass()
class Open:
    x: int = 1


def test_arguments_and_defaults():
    assert (Point(1), Point(x=1, y=2), Point(1, note="n")) == (Point(1, 2, ()),) * 3
    assert Row("a").parts == [] and Row("a").parts is not Row("a").parts and Row("a").made == 7
    assert Longer("a", [1], "z").extra == "z" and Longer("a", [1]).size == 1
    with pytest.raises(TypeError, match="missing"):
        Point()
    with pytest.raises(TypeError):
        Point(1, 2, (), "", 5)
    with pytest.raises(AssertionError):
        Row("bad")


def test_equality_and_hash_are_of_compared_fields():
    assert hash(Point(1, note="a")) == hash(Point(1, note="b")) and Point(1) != Point(2)
    assert Row("a") != Longer("a") and Point(1) != 1
    assert {Point(1): 5}[Point(1, 2)] == 5
    assert One("a") != One("a") and len({One("a"), One("a")}) == 2


@pytest.mark.parametrize("value", [Point(1), Row("a"), Longer("a")], ids=lambda value: type(value).__name__)
def test_nothing_can_be_set(value):
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.name = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.name


def test_the_tools_of_dataclasses_work():
    assert dataclasses.replace(Point(1), y=5) == Point(1, 5)
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2, "tags": (), "note": ""}
    assert repr(Point(1)) == "Point(x=1, y=2, tags=(), note='')"
    assert [row.name for row in dataclasses.fields(Longer)] == ["name", "parts", "made", "extra"]
    assert copy.copy(Point(1, 3)) == pickle.loads(pickle.dumps(Point(1, 3))) == copy.deepcopy(Point(1, 3)) == Point(1, 3)
    assert pickle.loads(pickle.dumps(Longer("a", [2]))) == Longer("a", [2])
    assert not hasattr(Point(1), "__dict__")


def test_what_is_not_frozen_is_the_standard_kind():
    value = Open()
    value.x = 5
    assert value == Open(5)
