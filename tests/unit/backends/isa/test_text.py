"""Disassembly of a small program, whole."""

from nxcc.backends.isa import instructions as _declared  # noqa: F401
from nxcc.backends.isa.program import (
    INSTRUCTIONS,
    AccessPattern,
    Affine,
    DmaPattern,
    Engine,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)
from nxcc.backends.isa.text import program_text
from nxcc.ir.dtypes import BF16, F32


def test_listing_of_a_loop():
    load = Instruction(INSTRUCTIONS["dma_copy"], {
        "source": DmaPattern(Memory.HBM, F32, Affine(4096, ((1, 512),)), (2048, 4)),
        "destination": DmaPattern(Memory.SBUF, F32, Affine(0), (1 << 18, 4))}, {"sizes": (128, 16)},
        signals=(Signal(Affine(3), 16),))
    copy = Instruction(INSTRUCTIONS["tensor_copy"], {
        "out": AccessPattern(Memory.SBUF, BF16, 0, 128, Affine(64, ((1, 32),)), ((20, 4), (1, 4))),
        "data": AccessPattern(Memory.SBUF, F32, 0, 128, Affine(), ((1, 16),))},
        waits=(Wait(Affine(3), Affine(16, ((1, 16),))),), debug=7)
    loop = Instruction(INSTRUCTIONS["loop"], fields={"register": 1, "count": Affine(8)})
    end, halt = Instruction(INSTRUCTIONS["end"]), Instruction(INSTRUCTIONS["halt"])
    program = Program([], [Function("main", {Engine.SYNC: [loop, load, end, halt], Engine.VECTOR: [loop, copy, end, halt]})],
                      320, 8192, 4)
    assert program_text(program, debug_name=lambda index: f"convert.{index}") == """\
program: 0 functions, 1 entries, 320 bytes a partition of sbuf, 8192 bytes of hbm, 4 semaphores

entry 0 main, DVE
     0  loop r1 < 8
     1    tensor_copy data=sbuf[0:128 @0]f32{16} out=sbuf[0:128 @64+r1*32]bf16{4x20, 4}  wait s[3]>=16+r1*16  ; convert.7
     2  end
     3  halt

entry 0 main, SP
     0  loop r1 < 8
     1    dma_copy source=hbm[@4096+r1*512]f32{128x2048B, 16x4B} destination=sbuf[@0]f32{128x262144B, 16x4B}  signal s[3]+=16
     2  end
     3  halt
"""
