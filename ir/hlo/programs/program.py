"""A host program: what a custom call `nxcc.program` holds, how it is written, and how it runs.

Its backend_config is JSON: `{"operands": n, "steps": [[function, [inputs], {attributes}], ..], "result": k}`. Values are
numbered: the operands of the call first, then the results of each step in order. Functions are those of `registry`, named
and meant as TensorFlow's operators are; arrays of strings are numbers in the run's table (`nxcc.ir.hlo.texts`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nxcc.ir.diagnostics import UNSUPPORTED_MODULE, CompileError
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.ops.custom_call import CustomCall, config_text, wrong_use
from nxcc.ir.hlo.programs.registry import find_function
from nxcc.ir.hlo.texts import current
from nxcc.ir.literals import Array

PROGRAM, TEXTS = "nxcc.program", "nxcc.texts"
"""Targets of custom calls: a program, and an array of constant strings, a JSON list with a character a byte."""
_FAULTS = (ValueError, IndexError, TypeError, KeyError, OverflowError, ZeroDivisionError, RecursionError)
"""What functions raise where arrays do not fit together."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a function: which values it reads, and its attributes."""

    function: str
    inputs: tuple[int, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Program:
    operands: int
    steps: tuple[Step, ...]
    result: int

    def encode(self) -> bytes:
        steps = [[step.function, list(step.inputs), dict(step.attributes)] for step in self.steps]
        return json.dumps({"operands": self.operands, "steps": steps, "result": self.result}, sort_keys=True).encode()

    def run(self, operands: Sequence[Array]) -> Array:
        """The result for these operands; ValueError and its like where they do not fit."""
        values = list(operands)
        for step in self.steps:
            function = find_function(step.function)
            if function is None:
                raise KeyError(f"there is no function {step.function!r}")
            values += function.evaluate(step.attributes, *(values[k] for k in step.inputs))
        return values[self.result]


def decode_program(text: str) -> Program:
    """The program of a backend_config; ValueError, TypeError or KeyError if it is none."""
    body = json.loads(text)
    steps = tuple(Step(str(name), tuple(int(k) for k in inputs), dict(attributes))
                  for name, inputs, attributes in body["steps"])
    if any(k < 0 for step in steps for k in step.inputs):
        raise ValueError("an input has a negative number")
    return Program(int(body["operands"]), steps, int(body["result"]))


def _run_program(instruction: Instruction, *operands: Array) -> Array:
    try:
        program = decode_program(config_text(instruction))
    except _FAULTS as error:
        raise wrong_use(instruction, f"its backend_config is no program: {error}") from None
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(program.run(operands))
    except _FAULTS as error:
        raise CompileError(UNSUPPORTED_MODULE, "a host program cannot do with these values what the graph asks",
                           instruction.location.op_name or instruction.name, why=str(error)) from None
    shape = instruction.shape
    if found.shape != shape.dims:
        raise CompileError(UNSUPPORTED_MODULE, f"a host program gives the size {list(found.shape)}",
                           instruction.location.op_name or instruction.name, why=f"the graph was compiled for {shape}")
    return found.astype(shape.dtype.numpy)


def _constant_texts(instruction: Instruction) -> Array:
    try:
        texts = [str(text).encode("latin-1") for text in json.loads(config_text(instruction))]
        return current().numbers(texts, instruction.shape.dims)
    except (ValueError, TypeError) as error:
        raise wrong_use(instruction, f"its backend_config is no list of strings: {error}") from None


def encode_texts(texts: Sequence[bytes]) -> bytes:
    """The backend_config of constant strings."""
    return json.dumps([text.decode("latin-1") for text in texts]).encode()


ROWS = (CustomCall(PROGRAM, None, _run_program), CustomCall(TEXTS, 0, _constant_texts))
