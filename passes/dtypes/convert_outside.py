"""What a target cannot hold and the module only converts is converted where the program begins and ends.

Before, on a target without f64:
  s = f64[] parameter(0)    a = f32[] convert(s)    ..    ROOT r = f64[4] convert(y)
After:
  a = f32[] parameter(0), frontend_attributes={nxcc.interface="f64"}    ..    ROOT y = f32[4] ..

The loader converts inputs, weights and results as the instruction would have: to the nearest, too large ones to infinity, and
widening is exact. torch-xla passes the numbers of a Python program as such parameters. What is updated in place stays.
"""

from __future__ import annotations

from nxcc.ir.dtypes import F16, F32, F64, DType
from nxcc.ir.facts import dataclass
from nxcc.ir.hlo.marks import INTERFACE, OUTPUT
from nxcc.ir.hlo.module import Computation, Instruction, Module
from nxcc.ir.shapes import tuple_of
from nxcc.passes.dtypes.legalize_dtypes import update_entry_layout
from nxcc.passes.effects import is_pinned
from nxcc.passes.rewriting import remove_unread

_TAKEN = frozenset((F32, F16))
"""Types to which the loader rounds f64 as a convert does; it keeps what is finite so in bf16."""


@dataclass(frozen=True)
class ConvertOutside:
    """dtypes: what the target has; empty: everything."""

    dtypes: frozenset[DType] = frozenset()
    name: str = "convert-outside"

    def run(self, module: Module) -> bool:
        if not self.dtypes or F64 in self.dtypes:
            return False
        aliased = {alias.parameter for alias in module.aliases}
        taken = [_take_in(module.entry, p) for number, p in enumerate(module.entry.parameters) if number not in aliased]
        if not any([*taken, _give_out(module)]):
            return False
        update_entry_layout(module)
        return True


def _take_in(computation: Computation, parameter: Instruction) -> bool:
    """Let a parameter that is only converted, always to one type, come in that type."""
    wanted = {user.shape.dtype for user in parameter.users}
    if parameter.shape.dtype is not F64 or parameter is computation.root or len(wanted) != 1 or not wanted <= _TAKEN \
            or any(user.opcode != "convert" or is_pinned(user) for user in parameter.users):
        return False
    parameter.frontend_attributes.setdefault(INTERFACE, F64.name)
    parameter.shape = parameter.shape.with_dtype(wanted.pop())
    for user in list(parameter.users):
        computation.replace(user, parameter)
        computation.remove(user)
    return True


def _give_out(module: Module) -> bool:
    """Let results that were widened last go out as they were before."""
    entry, root = module.entry, module.entry.root
    leaves = root.operands if root.opcode == "tuple" else (root,)
    updated = {alias.output_index for alias in module.aliases}
    found = {}
    for number, leaf in enumerate(leaves):
        place = (number,) if root.opcode == "tuple" else ()
        if leaf.shape.is_tuple:
            break
        if leaf.opcode == "convert" and leaf.shape.dtype is F64 and leaf.operands[0].shape.dtype in _TAKEN \
                and place not in updated:
            found[number] = leaf.operands[0]
    if not found:
        return False
    if root.opcode == "tuple":
        entry.set_operands(root, [found.get(number, leaf) for number, leaf in enumerate(leaves)])
        root.shape = tuple_of(*(operand.shape for operand in root.operands))
    else:
        entry.root = found[0]
    for number in found:
        module.frontend_attributes.setdefault(f"{OUTPUT}{number}", F64.name)
    remove_unread(entry, [leaves[number] for number in found])
    return True
