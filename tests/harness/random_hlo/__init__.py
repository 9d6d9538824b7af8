"""Random modules that are valid by construction, and what all judges say of them.

A module grows from typed values: an operator is drawn, its operands are taken from the values that are there, or made to
fit. Elementwise operators come from their declarations alone (arity, and the element types that the shape rule takes); an
operator with structure has a maker, which chooses attributes; the rest is in LEFT_OUT with its reason.

python -m harness.random_hlo [--count N] [--seed S]     runs any number (with tests/ on the path).
"""

from harness.random_hlo import (  # noqa: F401  they register makers
    alone,
    bodies,
    contraction,
    custom,
    elementwise,
    factors,
    flow,
    indexing,
    movement,
    networks,
    patterns,
    reduction,
    stacks,
    wires,
)
from harness.random_hlo.generator import LEFT_OUT, Bounds, Generator, drawn_opcodes, element_types
from harness.random_hlo.judging import Court, Fault, Tally, check, fault_text, reduced, trials_for

__all__ = ["LEFT_OUT", "Bounds", "Court", "Fault", "Generator", "Tally", "check", "drawn_opcodes", "element_types",
           "fault_text", "reduced", "trials_for"]
