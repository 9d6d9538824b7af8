"""The order in which XLA prints and serializes: post-order from what nobody reads, callees before callers."""

from __future__ import annotations

from nxcc.ir.hlo.module import Computation, Instruction, Module, callees_first


def instruction_order(computation: Computation) -> list[Instruction]:
    """Instructions in post-order from each one without users, first operand first; control predecessors come even earlier.

    A scheduled module keeps definition order instead; that is the caller's decision.
    """
    order: list[Instruction] = []
    state: dict[Instruction, bool] = {}
    for start in computation.instructions:
        if start.users:
            continue
        stack = [start]
        while stack:
            node = stack[-1]
            done = state.get(node)
            if done is None:
                state[node] = False
                stack.extend(o for o in reversed(node.operands) if o not in state)
                stack.extend(p for p in node.control_predecessors if p not in state)
                continue
            stack.pop()
            if not done:
                state[node] = True
                order.append(node)
    return order if len(order) == len(computation.instructions) else computation.post_order()


def computation_order(module: Module) -> list[Computation]:
    """Computations, callees before callers; those that nobody calls stand in their own order."""
    called = {c for i in module.instructions() for c in i.called}
    return callees_first(root for root in module.computations if root not in called)
