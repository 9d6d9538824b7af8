"""The attribute keys that the text of each operator may have, derived from its declaration."""

from __future__ import annotations

from functools import cache

from nxcc.ir.diagnostics import near
from nxcc.ir.hlo.attributes import Kind
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import Operator
from nxcc.ir.hlo.text.cursor import TextError
from nxcc.ir.hlo.text.notes import COMMON

_NOT_IN_TEXT = frozenset(("parameter_number",))
BRANCHES = ("true_computation", "false_computation")
"""What texts also call the two computations of a conditional."""

_IGNORED = {**dict.fromkeys(("async-update", "async-done"), frozenset(("calls", "async_execution_thread"))),
            **dict.fromkeys(("all-reduce", "all-reduce-start", "reduce-scatter"), frozenset(("mode",)))}
"""Old texts repeat the start's attributes at its update and done; the mode of a collective follows from its other attributes,
and XLA does not print it."""

_ALWAYS_IGNORED = frozenset(("outer_dimension_partitions",))
"""How many threads share an instruction: printed by XLA for CPUs until 2022, without a meaning for the result."""


class TextKeys:
    """The text keys of one operator: typed attributes, keys of computations, keys read and dropped, required keys.

    absent: what text means by leaving a key out, where that is not the default.
    """

    __slots__ = ("typed", "calls", "ignored", "required", "absent")

    def __init__(self, operator: Operator) -> None:
        listed = [a for a in operator.attributes if a.key not in _NOT_IN_TEXT
                  and not (a.kind is Kind.LITERAL and operator.name == "constant")]
        self.typed = {a.key: a for a in listed}
        self.required = tuple(a.key for a in listed if a.required)
        self.absent = {a.key: a.text_default for a in listed if a.text_default is not None}
        self.calls = {key.rstrip("*") for key in operator.called}
        self.ignored = _IGNORED.get(operator.name, frozenset()) | _ALWAYS_IGNORED
        if operator.name == "conditional":
            self.calls |= set(BRANCHES)
        elif operator.name == "custom-call":
            self.calls.add("to_apply")


@cache
def text_keys(operator: Operator) -> TextKeys:
    """Made once for each operator."""
    return TextKeys(operator)


def unknown_key(made: Instruction, key: str, position: int, declared: TextKeys) -> TextError:
    """The error for a key that the operator does not have. position: of the key in the text."""
    known = sorted({*declared.typed, *declared.calls, *COMMON})
    return TextError(position, f"{made.opcode} has no attribute {key!r}",
                     why="allowed are " + ", ".join(known), remedy=near(key, known))
