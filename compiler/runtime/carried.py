"""The HLO that a NEFF carries: the module after all passes, its large constants as trailing parameters.

`verify` evaluates it, the reports read it, and it can be compiled again: for advice, or with other code (`again.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nxcc.compiler.options import DECLARED, CompileOptions
from nxcc.ir.diagnostics import NEFF_INVALID, CompileError
from nxcc.ir.dtypes import BY_NAME
from nxcc.ir.hlo.marks import OURS
from nxcc.ir.hlo.module import Computation, Module
from nxcc.ir.literals import Array
from nxcc.neff.members import HostConstant
from nxcc.neff.reader import Neff

SPREADS = "spreads"
"""Under `nxcc` in neff.json: in how many products of the device a NaN may spread."""


def carried_module(neff: Neff) -> Module | None:
    """The module after all passes, without its large constants; None if the file carries none."""
    row = neff.require_runnable().nxcc.extra.get("module")
    if not isinstance(row, dict) or not isinstance(row.get("hlo"), str):
        return None
    return read_module(neff, row["hlo"], "module")


def embedded_module(neff: Neff) -> tuple[Module, list[Array]]:
    """The same with the values of its trailing parameters, which are its large constants, and without the zeros that passes put
    into products, so that it means the same for NaN and infinities as the module that was compiled.

    Raises CompileError if there is none.
    """
    from nxcc.passes.added_zeros import AddedZeros
    row = neff.require_runnable().nxcc.extra.get("module")
    where = f"{neff.path}: neff.json: module"
    if not isinstance(row, dict) or not isinstance(row.get("hlo"), str) or not isinstance(row.get("constants"), list):
        raise CompileError(NEFF_INVALID, "the file carries no module to compare with", where)
    constants = [_constant_row(entry, where) for entry in row["constants"]]
    module = read_module(neff, row["hlo"], "module")
    AddedZeros().run(module)
    return module, [neff.array(constant.file, constant.dtype, constant.shape) for constant in constants]


def _constant_row(entry: Any, where: str) -> HostConstant:
    if not isinstance(entry, dict) or entry.get("dtype") not in BY_NAME or not isinstance(entry.get("file"), str):
        raise CompileError(NEFF_INVALID, "a constant of the module is malformed", where)
    shape = entry.get("shape")
    if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
        raise CompileError(NEFF_INVALID, "a constant of the module is malformed", where)
    return HostConstant(str(entry.get("hlo")), entry["file"], BY_NAME[entry["dtype"]], tuple(shape))


def read_module(neff: Neff, member: str, name: str) -> Module:
    """An HLO text member as a verified module."""
    from nxcc.ir.hlo.text.reader import read_text
    from nxcc.ir.hlo.verifier import verify
    module = read_text(neff.text(member), name=f"{neff.path}: {member}")
    verify(module)
    return module


def as_read(module: Module) -> Module:
    """A carried module, in place, without the regions that passes formed, so that it can be compiled as any other."""
    from nxcc.passes.inline_calls import InlineCalls
    for computation in module.computations:
        for instruction in computation.instructions:
            instruction.frontend_attributes = {key: value for key, value in instruction.frontend_attributes.items()
                                               if not key.startswith(OURS)}
    InlineCalls().run(module)
    _dissolve_tuples(module.entry)
    module.frontend_attributes = {}
    module.entry_layout = None
    return module


def _dissolve_tuples(computation: Computation) -> None:
    """Who reads an element of a tuple reads what was put there: several results of a region are one by one again."""
    from nxcc.passes.effects import anchors
    from nxcc.passes.rewriting import remove_unread
    for instruction in list(computation.instructions):
        if instruction.opcode == "get-tuple-element" and instruction.operands[0].opcode == "tuple":
            computation.replace(instruction, instruction.operands[0].operands[instruction.attribute("index")])
    remove_unread(computation, reversed(list(computation.instructions)), anchors(computation))


def options_of(recorded: Mapping[str, Any]) -> CompileOptions:
    """How a file was compiled, as far as the HLO that it carries still needs it. recorded: the options in neff.json."""
    values: dict[str, Any] = {}
    for name, row in DECLARED.items():
        value = recorded.get(row.name.removeprefix("--"))
        if row.changes_output and value is not None and name not in _SPENT:
            values[name] = tuple(value) if row.many else value
    return CompileOptions(**values)


_SPENT = frozenset(("io_config", "signature", "weight_params", "compress", "strip"))
