"""What is asked before code is written: how often a target that lacks things is tried, and that the answer is the same."""

import pytest

from nxcc.backends.capability import support
from nxcc.backends.capability.support import unsupported
from nxcc.backends.target import load_target
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.text.reader import read_text


def instruction(opcode: str, *dims: int, operands: int = 1) -> Instruction:
    shape = f"f32[{','.join(map(str, dims))}]"
    lines = [f"  p{k} = {shape} parameter({k})" for k in range(operands)]
    call = f"{opcode}({', '.join(f'p{k}' for k in range(operands))})"
    return read_text("\n".join(["HloModule m", "ENTRY main {", *lines, f"  ROOT r = {shape} {call}", "}"])).entry.root


def test_elementwise_work_is_tried_once_whatever_its_sizes_are(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr(support, "refusal", lambda rule, form, key, target: tried.append(key))
    target = load_target("v1")
    for dims in ((3, 5), (1000, 7), (9,), (2, 3, 4, 5)):
        assert unsupported(instruction("tanh", *dims), target) is None
    assert len(tried) == 4 and len(set(tried)) == 1
    unsupported(instruction("tanh"), target)
    unsupported(instruction("exponential", 3, 5), target)
    assert len(set(tried)) == 3


@pytest.mark.parametrize("dims", [(1,), (7,), (128, 3), (129, 513), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize(("opcode", "operands"), [("sine", 1), ("add", 2), ("divide", 2), ("power", 2)])
def test_the_answer_of_the_small_form_is_that_of_the_instruction(opcode: str, operands: int, dims: tuple[int, ...],
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    target, asked = load_target("v1"), instruction(opcode, *dims, operands=operands)
    found = unsupported(asked, target)
    monkeypatch.setattr(support, "_small_form", lambda same: same)
    assert found == unsupported(asked, target)
