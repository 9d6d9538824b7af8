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


@dataclass(slots=True)
class Counter:
    name: str
    seen: list[int] = field(default_factory=list)
    total: int = field(init=False, default=0)


@dataclass
class Named(Open):
    name: str = "n"

    def __eq__(self, other):
        return isinstance(other, Named) and self.name == other.name


def test_what_is_not_frozen_can_be_set_and_has_no_hash():
    value = Counter("a")
    value.total += 2
    value.seen.append(1)
    assert value == copy.deepcopy(value) and value != Counter("a") and Counter("b").total == 0
    assert repr(value) == "Counter(name='a', seen=[1], total=2)" and not hasattr(value, "__dict__")
    with pytest.raises(TypeError, match="unhashable"):
        hash(value)
    with pytest.raises(AttributeError):
        value.other = 1


def test_what_a_class_writes_itself_stays():
    assert Named(1, "a") == Named(2, "a") != Named(2, "b")
    assert dataclasses.replace(Named(1, "a"), x=5).x == 5 and Named().name == Named.name == "n"


def test_a_standard_class_may_inherit():
    @dataclasses.dataclass(frozen=True)
    class Standard(Row):
        more: int = 3

    assert Standard("a", [1]) == Standard("a", [1], more=3) and Standard("a").made == 7
