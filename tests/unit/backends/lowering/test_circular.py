"""What is known of an angle's size, and what that leaves out."""

from __future__ import annotations

import math

import pytest

from nxcc.backends.lowering.pointwise.circular import largest
from nxcc.backends.lowering.pointwise.formulas import compose
from nxcc.backends.lowering.terms import Span, Term, input_term
from nxcc.ir.dtypes import F32
from nxcc.ir.hlo.text.reader import read_text


def term_of(*opcodes: str) -> Term:
    """Functions one after another of an input of any size."""
    lines = [f"x{n + 1} = f32[64] {opcode}(x{n})" for n, opcode in enumerate(opcodes)]
    module = read_text("HloModule m\nENTRY e { x0 = f32[64] parameter(0)\n" + "\n".join(lines[:-1]) + f"\nROOT {lines[-1]} }}")
    found: dict[str, Term] = {"x0": input_term(0, F32, Span.TILE)}
    for instruction in module.entry.post_order()[1:]:
        made = compose(instruction, [found[o.name] for o in instruction.operands])
        assert made is not None
        found[instruction.name] = made
    return found[module.entry.root.name]


def size_of(term: Term) -> int:
    """Operations that make it."""
    found, stack = {id(term)}, [term]
    while stack:
        for one in stack.pop().inputs:
            if id(one) not in found:
                found.add(id(one))
                stack.append(one)
    return len(found)


@pytest.mark.parametrize(("opcode", "bound"), [
    ("sine", 1.0), ("cosine", 1.0), ("tanh", 1.0), ("exponential", math.inf), ("negate", math.inf)])
def test_bounds(opcode: str, bound: float) -> None:
    assert largest(term_of(opcode)) == bound
    assert largest(term_of(opcode, "negate")) == bound


def test_a_bounded_angle_is_not_reduced_by_its_bits() -> None:
    assert size_of(term_of("sine", "sine")) < size_of(term_of("sine")) + 5
    assert size_of(term_of("tanh", "cosine")) < size_of(term_of("cosine")) / 3
    assert size_of(term_of("exponential", "sine")) > size_of(term_of("sine"))
