"""What is asked before code is written: what a target that lacks things is tried with, and what need not be."""

from itertools import product

import pytest

from nxcc.backends.capability import support
from nxcc.backends.capability.refusal import refusal
from nxcc.backends.capability.support import device_dtypes, is_written_for_any_target, unsupported
from nxcc.backends.codegen.structure import structure_of
from nxcc.backends.lowering.registry import rules
from nxcc.backends.target import load_target
from nxcc.compiler.reports.operator_forms import FORMS
from nxcc.compiler.reports.operator_support import form_of
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.text.reader import read_text

V1 = load_target("v1")
SIZES = ((), (7,), (130, 48), (129, 513))


def instruction(opcode: str, *dims: int, operands: int = 1, dtype: str = "f32", result: str = "") -> Instruction:
    shape = f"[{','.join(map(str, dims))}]"
    lines = [f"  p{k} = {dtype}{shape} parameter({k})" for k in range(operands)]
    call = f"{opcode}({', '.join(f'p{k}' for k in range(operands))})"
    lines.append(f"  ROOT r = {result or dtype}{shape} {call}")
    return read_text("\n".join(["HloModule m", "ENTRY main {", *lines, "}"])).entry.root


def tried(asked: Instruction) -> str | None:
    return refusal(rules()[asked.opcode], asked, structure_of(asked), V1)


@pytest.mark.parametrize("opcode", sorted(opcode for opcode in FORMS if is_written_for_any_target(opcode)))
def test_a_formula_is_legal_wherever_its_rule_says_so(opcode: str) -> None:
    for dtype in device_dtypes(V1):
        form = form_of(opcode, dtype)
        if form is not None and unsupported(form, V1) is None:
            assert tried(form) is None, dtype


@pytest.mark.parametrize("dims", SIZES, ids=str)
@pytest.mark.parametrize(("opcode", "operands"), [("sine", 1), ("add", 2), ("divide", 2), ("power", 2)])
def test_a_formula_is_legal_in_any_size(opcode: str, operands: int, dims: tuple[int, ...]) -> None:
    assert tried(instruction(opcode, *dims, operands=operands)) is None


def test_conversions_are_legal_between_all_that_their_rule_takes() -> None:
    for source, target in product(device_dtypes(V1), repeat=2):
        asked = instruction("convert", 130, 48, dtype=str(source), result=str(target))
        assert unsupported(asked, V1) is not None or tried(asked) is None, (source, target)


def test_formulas_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    monkeypatch.setattr(support, "refusal", lambda rule, form, key, target: keys.append(key))
    assert unsupported(instruction("tanh", 3, 5), V1) is None
    assert not keys
