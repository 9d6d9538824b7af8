"""Runs the nodes of a plan one by one on the oracle."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.verifier import verify
from nxcc.ir.literals import Array
from nxcc.passes.partitioning.partition import Plan


def run_plan(plan: Plan, values: Sequence[Array]) -> list[Array]:
    """Results of the plan, every node's module verified; values: of its parameters, in order."""
    environment = dict(zip(plan.parameters, values, strict=True))
    for node in plan.nodes:
        verify(node.module)
        results = flatten(evaluate(node.module, [environment[name] for name in node.inputs]))
        environment |= dict(zip(node.outputs, results, strict=True))
    return [environment[name] for name in plan.results]
