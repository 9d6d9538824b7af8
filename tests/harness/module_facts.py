"""All that a module says, as plain values, so that two modules can be compared and a difference is readable."""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.literals import Literal
from nxcc.ir.shapes import Shape, shape_text


def module_facts(module: Module) -> dict[str, Any]:
    """Header and computations by name; bit patterns for constants, so that NaNs and negative zeros count."""
    facts: dict[str, Any] = {
        name: getattr(module, name) for name in ("name", "is_scheduled", "aliases", "buffer_donors", "frontend_attributes",
                                                 "stack_frames")}
    facts["entry"] = module.entry.name
    if module.entry_layout is not None:
        parameters, result = module.entry_layout
        facts["entry_layout"] = [shape_text(s) for s in (*parameters, result)]
    return facts | {c.name: _computation(c) for c in module.computations}


def _computation(computation: Computation) -> dict[str, Any]:
    return {"thread": computation.execution_thread, "is_fusion": computation.is_fusion, "root": computation.root.name,
            "instructions": [_instruction(i) for i in computation.instructions]}


def _instruction(instruction: Instruction) -> dict[str, Any]:
    return {
        "name": instruction.name, "opcode": instruction.opcode, "shape": shape_text(instruction.shape),
        "operands": [o.name for o in instruction.operands], "users": [u.name for u in instruction.users],
        "called": [c.name for c in instruction.called], "after": [p.name for p in instruction.control_predecessors],
        "attributes": {key: _value(value) for key, value in instruction.attributes.items()},
        **{name: getattr(instruction, name) for name in (
            "location", "frontend_attributes", "backend_config", "sharding", "statistics", "origin")}}


def _value(value: Any) -> Any:
    if isinstance(value, Literal):
        return shape_text(value.shape), [_value(e) for e in value.elements] or _bits(value)
    if isinstance(value, Shape):
        return shape_text(value)
    return value


def _bits(literal: Literal) -> list[int] | list[float]:
    array = literal.array
    if literal.shape.dtype.bits < 8 or array.dtype.kind not in "fc":
        return np.ravel(array.astype(np.float64) if array.dtype.kind == "V" else array).tolist()
    return np.frombuffer(array.tobytes(), np.uint8).tolist()
