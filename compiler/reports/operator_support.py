"""Where each operator runs on a target, in which element types, and what limits it, as the compiler's own rules say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from nxcc.backends.capability.support import device_dtypes, unsupported
from nxcc.backends.target import Target, load_target
from nxcc.compiler.reports.operator_forms import ELSEWHERE, EXPANDED, FORMS, LIMITS
from nxcc.compiler.reports.operators import ON_DEVICE, builder_names
from nxcc.ir.diagnostics import CompileError
from nxcc.ir.dtypes import C64, F8E4M3FN, F64, S4, DType
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.operator import operators
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify

DEVICE, HOST, NO = "device", "host", "no"
OTHERS = (F64, C64, F8E4M3FN, S4)
"""Element types beside those of a target's memory that operators are asked about."""


def form_of(opcode: str, dtype: DType) -> Instruction | None:
    """The operator's form with an element type; None if that is not valid HLO."""
    return _instruction(FORMS[opcode], dtype)


def _instruction(form: str, dtype: DType) -> Instruction | None:
    try:
        module = read_text("r = " + re.sub(r"\bT\[", f"{dtype}[", form))
        verify(module)
    except CompileError:
        return None
    return module.entry.root


def support_rows(target_name: str) -> list[dict[str, Any]]:
    """Every operator: opcode, names, placement (device, host, no), dtypes on the device, constraint in words."""
    target = load_target(target_name)
    return [_row(opcode, target) for opcode in sorted(operators())]


def _row(opcode: str, target: Target) -> dict[str, Any]:
    placement, dtypes, words = _placement(opcode, target)
    return {"opcode": opcode, "names": list(builder_names(opcode)), "placement": placement, "dtypes": dtypes,
            "constraint": "; ".join(words)}


def _placement(opcode: str, target: Target) -> tuple[str, list[str], list[str]]:
    if opcode in EXPANDED:
        written = EXPANDED[opcode]
        on_host = written in ON_DEVICE["v2"] and written not in ON_DEVICE[target.name]
        return (HOST, [], [f"{written} runs on the host"]) if on_host else (DEVICE, [], [f"written as {written}"])
    if opcode not in FORMS:
        if opcode in ON_DEVICE[target.name]:
            return DEVICE, [], ["order or structure, which costs nothing"]
        operator = operators()[opcode]
        return HOST if operator.evaluate is not None else NO, [], [ELSEWHERE[opcode]]
    able, refused = _asked(opcode, target)
    if not able:
        return HOST, [], list(refused)[:1]
    limits = [word for form in LIMITS.get(opcode, ()) for word in _limit(form, able, target)]
    rest = [reason for reason, dtypes in refused.items() if not _is_foreign(reason, dtypes)]
    return DEVICE, able if "T[" in FORMS[opcode] else [], [*rest, *limits]


def _asked(opcode: str, target: Target) -> tuple[list[str], dict[str, list[str]]]:
    """The dtypes that the device takes, and the reasons against others."""
    able: list[str] = []
    refused: dict[str, list[str]] = {}
    for dtype in (*device_dtypes(target), *OTHERS):
        instruction = form_of(opcode, dtype)
        if instruction is None:
            continue
        reason = unsupported(instruction, target)
        if reason is None:
            able.append(dtype.name)
        else:
            refused.setdefault(reason, []).append(dtype.name)
    return able, refused


def _is_foreign(reason: str, dtypes: Sequence[str]) -> bool:
    """Whether a reason says no more than that a dtype is none of the target's."""
    return all(f"{name} is not a dtype" in reason for name in dtypes)


def _limit(form: str, able: Iterable[str], target: Target) -> list[str]:
    dtype = next((d for d in device_dtypes(target) if d.name in able), None)
    instruction = _instruction(form, dtype) if dtype is not None else None
    reason = unsupported(instruction, target) if instruction is not None else None
    return [reason] if reason else []
