"""The frontend attributes in which one stage of nxcc tells another what HLO has no word for.

All begin with `OURS`; a module that is printed and read again keeps them. What a module means to its user is `counted` and
`texts`; the rest is here.
"""

from __future__ import annotations

from nxcc.ir.hlo.module import Instruction

OURS = "nxcc."

ROWS = f"{OURS}rows"
"""Of a fusion that is a row program: how many leading dimensions of its root are rows (see `rowspace`)."""
CHAIN = f"{OURS}chain"
"""Of a fusion of row programs that hand their results on inside the chip: the number of rows they work in."""
IMAGES = f"{OURS}images"
"""Of a fusion that is an image program: what each dimension of its root runs over (see `imagespace`)."""
SCAN = f"{OURS}scan"
"""Of a fusion that is a scan: which dimension of its root is time (see `scanspace`)."""
MATMUL = f"{OURS}matmul"
"""Of a dot or a convolution: the dtype to which the tensor engine rounds its operands, `tf32`."""
GROUPS = f"{OURS}groups"
"""Of a convolution: how many groups it had before these were packed with zeros between them."""
SUMMED = f"{OURS}rows_summed"
"""Of a dot whose operands' rows lie among rows of zeros: extents of both, e.g. `8,28,28 of 8,30,30`."""

INTERFACE = f"{OURS}interface"
"""Of a parameter: the dtype in which the user gives it, where a pass has changed the parameter's."""
ORDER = f"{OURS}order"
"""Of a parameter that is kept transposed: for each of its dimensions, that of the user's tensor, e.g. `1,0`."""
OUTPUT = f"{OURS}output."
"""Of a module whose results passes changed: `nxcc.output.<leaf>` is the dtype that the user gets."""


def is_row_program(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and ROWS in instruction.frontend_attributes


def row_dims(program: Instruction) -> int:
    """How many leading dimensions of each root of a row program are rows."""
    return int(program.frontend_attributes[ROWS])


def is_row_chain(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and CHAIN in instruction.frontend_attributes


def is_image_program(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and IMAGES in instruction.frontend_attributes


def is_scan_program(instruction: Instruction) -> bool:
    return instruction.opcode == "fusion" and SCAN in instruction.frontend_attributes
