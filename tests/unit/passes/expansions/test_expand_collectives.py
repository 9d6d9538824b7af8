"""On one device a collective is its operand, a part of it, or zeros; the oracle's answer stays."""

import numpy as np
import pytest

from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.dead_code import DeadCode
from nxcc.passes.expansions.expand_collectives import ExpandCollectives

CASES = {
    "all-reduce": "ROOT r = f32[4,2] all-reduce(x), to_apply=add",
    "all-reduce pair": "s = f32[4,2] all-reduce-start(x), to_apply=add\n ROOT r = f32[4,2] all-reduce-done(s)",
    "all-gather": "ROOT r = f32[4,2] all-gather(x), dimensions={0}",
    "reduce-scatter": "ROOT r = f32[2,2] reduce-scatter(x), replica_groups={{0,1}}, dimensions={0}, to_apply=add",
    "permute to itself": "ROOT r = f32[4,2] collective-permute(x), source_target_pairs={{0,0}}",
    "permute from nowhere": "ROOT r = f32[4,2] collective-permute(x), source_target_pairs={{0,1}}",
    "replica-id": "ROOT r = u32[] replica-id()",
}


@pytest.mark.parametrize("body", CASES.values(), ids=CASES.keys())
def test_collective_becomes_plain_instructions(body: str) -> None:
    module = read_text("HloModule m\nadd {\n a = f32[] parameter(0)\n b = f32[] parameter(1)\n ROOT s = f32[] add(a, b)\n}\n"
                       f"ENTRY e {{\n x = f32[4,2] parameter(0)\n {body}\n}}")
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    before = evaluate(module, [x])
    assert ExpandCollectives().run(module)
    DeadCode().run(module)
    verify(module)
    assert np.array_equal(evaluate(module, [x]), before)
    opcodes = {i.opcode for i in module.entry.instructions}
    assert opcodes <= {"parameter", "constant", "slice", "broadcast"}
