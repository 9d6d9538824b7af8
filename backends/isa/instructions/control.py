"""What every sequencer does: registers, structured control flow, calls, semaphores. Ours: the real encoding is not public.

Loops and conditionals are structured in the encoding, so that the machine verifier can follow them.
"""

from nxcc.backends.isa.program import Engine, FieldKind, FieldSpec, Memory, OperandSpec, instruction
from nxcc.ir.dtypes import F32, PRED, S8, S16, S32, U8, U16, U32

ALL = tuple(Engine)
REGISTER_OPS = ("add", "subtract", "multiply", "divide", "modulo", "minimum", "maximum", "and", "or", "xor", "shift_left",
                "shift_right", "equal", "not_equal", "less", "less_equal")
"""Signed 32-bit, wrapping; divide and modulo round to minus infinity; comparisons give 1 or 0."""

LOOP = instruction("loop", 0x80, ALL, (), (FieldSpec("register", FieldKind.REGISTER), FieldSpec("count", FieldKind.AFFINE)),
                   meaning="run up to the matching end with register = 0, 1, .. count-1; not at all if count <= 0.")
WHILE = instruction("while", 0x81, ALL, (), (), meaning="run up to the matching end again and again until break_unless leaves.")
BREAK_UNLESS = instruction("break_unless", 0x82, ALL, (), (FieldSpec("register", FieldKind.REGISTER),),
                           meaning="leave the innermost `while` if the register is 0.")
IF = instruction("if", 0x83, ALL, (), (FieldSpec("register", FieldKind.REGISTER),), meaning="run up to `else` or end if not 0.")
ELSE = instruction("else", 0x84, ALL, meaning="the other arm of the innermost `if`.")
END = instruction("end", 0x85, ALL, meaning="ends the innermost loop, while or if.")
CALL = instruction("call", 0x86, ALL, (),
                   (FieldSpec("function", FieldKind.FUNCTION), FieldSpec("debug_step", FieldKind.INT, default=0)),
                   meaning="run this engine's stream of a function, then go on; registers are shared; functions do not call. "
                           "debug_step: how far the debug index moves in each turn of the loop around the call.")
HALT = instruction("halt", 0x87, ALL, meaning="this engine is done.")
NOP = instruction("nop", 0x88, ALL, meaning="nothing but its waits and signals.")
REGISTER_SET = instruction(
    "register_set", 0x89, ALL, (), (FieldSpec("register", FieldKind.REGISTER), FieldSpec("value", FieldKind.AFFINE)),
    meaning="register = constant + registers * coefficients.")
REGISTER_ALU = instruction(
    "register_alu", 0x8A, ALL, (),
    (FieldSpec("register", FieldKind.REGISTER), FieldSpec("op", FieldKind.ENUM, REGISTER_OPS),
     FieldSpec("a", FieldKind.AFFINE), FieldSpec("b", FieldKind.AFFINE)), meaning="register = a op b.")
REGISTER_LOAD = instruction(
    "register_load", 0x8B, ALL,
    (OperandSpec("source", "r", (Memory.HBM, Memory.SBUF), (F32, PRED, S8, S16, S32, U8, U16, U32), dma=True),),
    (FieldSpec("register", FieldKind.REGISTER),),
    meaning="register = the one element at the address (u32 above 2^31-1 saturates; f32 bits as they are).")
REGISTER_STORE = instruction(
    "register_store", 0x8C, ALL, (OperandSpec("destination", "w", (Memory.HBM, Memory.SBUF), (S32, U32), dma=True),),
    (FieldSpec("register", FieldKind.REGISTER),), meaning="the element at the address = register.")
