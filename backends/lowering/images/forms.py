"""How the elementwise work of an image program is computed: factor, offset and a bound at zero while a value is moved.

A chain of additions and multiplications by channel (a bias, a norm) is one form `function(base * scale + shift)` of the value
that it begins with, so that it costs nothing but the eviction of a product's sums. Sums of two images and all other operators
are bases of new forms. Folding keeps f32 throughout, of narrow floats as well, which are rounded when they are stored: its
rounding differs from the chain's in the last places.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from nxcc.backends.lowering.images.columns import Column, Columns
from nxcc.backends.lowering.pointwise.custom import scalar_function
from nxcc.backends.lowering.pointwise.float import ACTIVATIONS
from nxcc.ir.dtypes import BF16, F16, F32
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction

COPY, RELU = "copy", "relu"
FLOATS = (F32, BF16, F16)


@dataclass(frozen=True, slots=True)
class Form:
    """function(base * scale + shift), and no more than `most`; base is computed or loaded."""

    base: Instruction
    scale: Column = 1.0
    shift: Column = 0.0
    function: str = COPY
    most: float = math.inf

    @property
    def is_open(self) -> bool:
        """Whether factors and offsets may still be folded in."""
        return self.function == COPY and self.most == math.inf


@dataclass(frozen=True, slots=True)
class Sum:
    """base * scale + other, of two images."""

    form: Form
    other: Instruction


class Forms:
    """The forms of values that are not images as they lie; sums: values that are the sum of a form and an image.

    columns: makes factors and offsets. channel_like: values that are such.
    """

    def __init__(self, columns: Columns, channel_like: Iterable[Instruction]) -> None:
        self.columns = columns
        self.channel_like = frozenset(channel_like)
        self.forms: dict[Instruction, Form] = {}
        self.sums: dict[Instruction, Sum] = {}

    def of(self, value: Instruction) -> Form:
        return self.forms.get(value) or Form(value)

    def add(self, value: Instruction) -> None:
        """Find out how an elementwise value is computed; its operands come first."""
        rule = _RULES.get(value.opcode)
        if rule is not None:
            rule(self, value)

    def is_plain(self, value: Instruction) -> bool:
        """Whether a value is its own base, so that nothing is left to do once that is computed."""
        return self.of(value) == Form(value)

    # ---- rules ----------------------------------------------------------------------------------------------------------

    def _convert(self, value: Instruction) -> None:
        source = value.operands[0]
        if source.shape.dtype is F32 and value.shape.dtype in FLOATS:
            self.forms[value] = self.of(source)

    def _same(self, value: Instruction) -> None:
        self.forms[value] = self.of(value.operands[0])

    def _sides(self, value: Instruction) -> tuple[Instruction, Instruction, bool] | None:
        """Image, column, and whether the column comes first; None if both are images or no floats."""
        a, b = value.operands
        if value.shape.dtype not in FLOATS or (a in self.channel_like) == (b in self.channel_like):
            return None
        return (b, a, True) if a in self.channel_like else (a, b, False)

    def _factor(self, value: Instruction) -> None:
        sides = self._sides(value)
        if sides is None or not self.of(sides[0]).is_open:
            return
        image, column, first = sides
        factor = self.columns.wide(column)
        if value.opcode == "divide":
            if first or factor == 0.0:
                return
            factor = self.columns.inverse(factor)
        form = self.of(image)
        combined = self.columns.combined
        self.forms[value] = Form(form.base, combined("multiply", form.scale, factor), combined("multiply", form.shift, factor))

    def _offset(self, value: Instruction) -> None:
        sides = self._sides(value)
        if sides is None:
            self._sum(value)
            return
        image, column, first = sides
        form = self.of(image)
        if not form.is_open:
            return
        combined = self.columns.combined
        offset = self.columns.wide(column)
        if value.opcode == "add":
            self.forms[value] = Form(form.base, form.scale, combined("add", form.shift, offset))
        elif first:
            turned = combined("multiply", form.scale, -1.0)
            self.forms[value] = Form(form.base, turned, combined("subtract", offset, form.shift))
        else:
            self.forms[value] = Form(form.base, form.scale, combined("subtract", form.shift, offset))

    def _sum(self, value: Instruction) -> None:
        """The operand with the richer form is taken apart; its offset is left for what follows."""
        a, b = value.operands
        if value.opcode != "add" or value.shape.dtype not in FLOATS or a is b or a in self.channel_like:
            return
        if not self.of(a).is_open or len(self._weight(b)) > len(self._weight(a)) and self.of(b).is_open:
            a, b = b, a
        form = self.of(a)
        if not form.is_open:
            return
        self.sums[value] = Sum(form, b)
        self.forms[value] = Form(value, 1.0, form.shift)

    def _weight(self, value: Instruction) -> list[Column]:
        form = self.of(value)
        return [part for part, idle in ((form.scale, 1.0), (form.shift, 0.0)) if part != idle] if form.is_open else []

    def _bound(self, value: Instruction) -> None:
        """The larger of a value and zero."""
        sides = self._sides(value)
        if sides is not None and self.of(sides[0]).is_open and self.columns.of(sides[1]) == 0.0:
            form = self.of(sides[0])
            self.forms[value] = Form(form.base, form.scale, form.shift, RELU)

    def _most(self, value: Instruction) -> None:
        """The smaller of a value and a number."""
        sides = self._sides(value)
        if sides is None:
            return
        form, most = self.of(sides[0]), self.columns.of(sides[1])
        if isinstance(most, float) and not math.isnan(most) and form.base is not sides[0]:
            self.forms[value] = replace(form, most=min(form.most, most))

    def _function(self, value: Instruction) -> None:
        """What Scalar computes in one go."""
        form = self.of(value.operands[0])
        function = scalar_function(value)
        if function is not None and form.is_open and value.shape.dtype in FLOATS:
            self.forms[value] = replace(form, function=function)


_RULES = {"convert": Forms._convert, "reshape": Forms._same, "multiply": Forms._factor, "divide": Forms._factor,
          "add": Forms._offset, "subtract": Forms._offset, "maximum": Forms._bound, "minimum": Forms._most,
          "custom-call": Forms._function, **dict.fromkeys(ACTIVATIONS, Forms._function)}


class Action(enum.Enum):
    """What computes a value: MAKE moves its base, SUM adds two images, WORK runs its operator on tiles. LIMIT is no
    action of its own: it names the tile of what is still to be bounded."""

    MAKE = enum.auto()
    SUM = enum.auto()
    WORK = enum.auto()
    LIMIT = enum.auto()


def actions(forms: Forms, members: Sequence[Instruction], stored: Iterable[Instruction]) -> list[tuple[Instruction, Action]]:
    """What must be done, in order, so that the stored values are there. members: elementwise values, operands first.

    What is no member (a head, a value of an earlier stage, an operand) is there.
    """
    inside = set(members)
    wanted: set[tuple[Instruction, Action]] = set()
    waiting = list(stored)
    while waiting:
        value = waiting.pop()
        if value not in inside:
            continue
        base = forms.of(value).base
        if not forms.is_plain(value):
            wanted.add((value, Action.MAKE))
        if base not in inside:
            continue
        step = base, Action.SUM if base in forms.sums else Action.WORK
        if step not in wanted:
            wanted.add(step)
            waiting.extend(_read(forms, base))
    return [(value, action) for value in members for action in (Action.SUM, Action.WORK, Action.MAKE)
            if (value, action) in wanted]


def _read(forms: Forms, base: Instruction) -> Iterator[Instruction]:
    """Images that must be there to compute a base; of a sum's form its base alone."""
    if base not in forms.sums:
        yield from (operand for operand in base.operands if operand not in forms.channel_like)
        return
    yield forms.sums[base].other
    yield forms.sums[base].form.base
