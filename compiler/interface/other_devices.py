"""What a module says about data of other devices, of which the one core that a NEFF is for has none."""

from __future__ import annotations

from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.ops.collective import needs_others


def absent_devices(module: Module) -> str:
    """A warning that names the first collective whose group has other devices than this one; empty if there is none.

    Those that cannot be without them (a gather, an exchange) are errors; the others have the meaning that they have on one
    device, as in XLA: what is reduced is the operand itself, and what nobody sends is zeros.
    """
    found = [row for row in module.instructions() if needs_others(row)]
    if not found:
        return ""
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (f"{found[0].opcode} {found[0].name}{more}: a group has other devices, and there is one: "
            "a reduction gives its own operand, a permutation zeros for what is not sent")
