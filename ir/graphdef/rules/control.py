"""Calls, conditionals and loops whose bodies are functions of the library."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.loops import Body, branch_number, lower_branches, lower_while, truth
from nxcc.ir.graphdef.reader import Function
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value


@rule("PartitionedCall", "StatefulPartitionedCall")
def partitioned_call(call: Call) -> Sequence[Value]:
    return call.scope.call_function(call.attr("f"), call.inputs, call.node.name)


def _function(call: Call, name: str) -> Body:
    return lambda emit, values: call.scope.call_function(name, values, call.node.name, emit)


@rule("If", "StatelessIf", needs=("conditional",))
def if_(call: Call) -> Sequence[Value]:
    selector = truth(call.emit, call.inputs[0], call.name)
    branches = [_function(call, call.attr("then_branch")), _function(call, call.attr("else_branch"))]
    return lower_branches(call.scope, selector, call.inputs[1:], branches, call.name)


@rule("Case", "StatelessCase", needs=("conditional",))
def case(call: Call) -> Sequence[Value]:
    names = [f.name for f in call.node.attributes["branches"].list.func]
    call.need(bool(names), "there are no branches")
    selector = branch_number(call.emit, call.inputs[0], call.name)
    return lower_branches(call.scope, selector, call.inputs[1:], [_function(call, name) for name in names], call.name)


def _passes_on(function: Function, number: int) -> bool:
    """True if a function returns an argument as it is."""
    edge = function.results.get(function.outputs[number], "")
    name = edge.partition(":")[0]
    for _ in range(len(function.nodes) + 1):
        if name == function.inputs[number][0]:
            return True
        node = function.nodes.get(name)
        if node is None or node.op != "Identity" or not node.inputs:
            return False
        name = node.inputs[0].partition(":")[0]
    return False


@rule("While", "StatelessWhile", needs=("while",))
def while_(call: Call) -> Sequence[Value]:
    functions = call.scope.world.graph.functions
    body, condition = call.attr("body"), call.attr("cond")
    row = functions.get(body)
    call.need(row is not None and len(row.inputs) == len(row.outputs) == len(call.inputs) and condition in functions,
              f"the library must have {body!r}, of {len(call.inputs)} arguments and results, and {condition!r}")
    assert row is not None
    fixed = [_passes_on(row, k) for k in range(len(call.inputs))]

    def test(emit: Emitter, values: list[Value]) -> Value:
        return call.scope.call_function(condition, values, call.node.name, emit)[0]

    return lower_while(call.scope, call.inputs, fixed, test, _function(call, body), call.name)
