"""Recurrent cells that are one operator: TensorFlow's own LSTM and GRU kernels. Source: their operators' documentation."""

from __future__ import annotations

from collections.abc import Sequence

from nxcc.ir.dtypes import S32
from nxcc.ir.facts import dataclass
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction


@dataclass(frozen=True)
class _Cell:
    """An LSTM cell. order: of the gates in the columns of the weights. peepholes: of input, forget and output gate, or none."""

    order: str
    forget_bias: float
    clip: float

    def step(self, e: Emitter, x: Instruction, cell: Instruction, hidden: Instruction, weights: Instruction,
             bias: Instruction, peepholes: Sequence[Instruction]) -> list[Instruction]:
        """i, cs, f, o, ci, co and h, each [batch, cells]."""
        size = cell.shape.dims[1]
        sums = _affine(e, e.concatenate([x, hidden], 1), weights, bias)
        gates = {name: e.part(sums, 1, k * size, (k + 1) * size) for k, name in enumerate(self.order)}
        forget = e.offset(gates["f"], self.forget_bias) if self.forget_bias else gates["f"]
        enter, out = gates["i"], gates["o"]
        if peepholes:
            enter, forget = (e.add(gate, e.multiply(cell, w)) for gate, w in zip((enter, forget), peepholes, strict=False))
        enter, forget = (e.make("logistic", gate) for gate in (enter, forget))
        fresh = e.make("tanh", gates["c"])
        state = e.add(e.multiply(fresh, enter), e.multiply(cell, forget))
        if self.clip > 0:
            state = e.clamp(state, -self.clip, self.clip)
        out = e.make("logistic", e.add(out, e.multiply(state, peepholes[2])) if peepholes else out)
        shown = e.make("tanh", state)
        return [enter, state, forget, out, fresh, shown, e.multiply(shown, out)]


def _affine(e: Emitter, x: Instruction, weights: Instruction, bias: Instruction) -> Instruction:
    return e.add(e.builder.dot(x, weights, ((1,), (0,))), bias)


def _cell(call: Call) -> _Cell:
    if call.node.op == "BlockLSTMV2":
        return _Cell("ifco", 0.0, call.attr("cell_clip"))
    return _Cell("icfo", call.attr("forget_bias"), call.attr("cell_clip"))


def _check(call: Call, x: Instruction, cell: Instruction, hidden: Instruction, weights: Instruction) -> None:
    size = cell.shape.dims[1]
    call.need(hidden.shape.dims == cell.shape.dims and weights.shape.dims == (x.shape.dims[-1] + size, 4 * size),
              f"input {x.shape}, state {cell.shape} and weights {weights.shape} do not fit together")


@rule("LSTMBlockCell", needs=("dot",), ranks=(2, 2, 2, 2, 1, 1, 1, 1))
def lstm_cell(call: Call) -> Sequence[Value]:
    x, cell, hidden, weights, *peepholes, bias = call.operands
    _check(call, x, cell, hidden, weights)
    return _cell(call).step(call.emit, x, cell, hidden, weights, bias, peepholes if call.attr("use_peephole") else ())


@rule("BlockLSTM", "BlockLSTMV2", needs=("while", "dot", "dynamic-update-slice"), ranks=(0, 3, 2, 2, 2, 1, 1, 1, 1))
def lstm(call: Call) -> Sequence[Value]:
    """All steps of time; what lies behind seq_len_max is zero."""
    e, (length, x, cell, hidden, weights, *peepholes, bias) = call.emit, call.operands
    _check(call, x, cell, hidden, weights)
    row = _cell(call)
    times, (batch, size) = x.shape.dims[0], cell.shape.dims
    made = [e.full(x.shape.dtype, (times, batch, size), 0) for _ in range(7)]
    held = [weights, bias, *(peepholes if call.attr("use_peephole") else ())]

    def turn(inner: Emitter, parts: list[Instruction]) -> list[Instruction]:
        time, inputs, state, shown, *rest = parts
        results, (w, b, *holes) = rest[:7], rest[7:]
        step = row.step(inner, inner.row(inputs, time), state, shown, w, b, holes)
        written = [inner.with_row(whole, time, value) for whole, value in zip(results, step, strict=True)]
        return [inner.offset(time, 1), inputs, step[1], step[6], *written, w, b, *holes]

    state = [e.index(0), x, cell, hidden, *made, *held]
    after = e.loop(state, lambda inner, parts: inner.compare(parts[0], inner.index(times), "LT"), turn, "lstm")[4:11]
    known = call.known(0)
    if known is not None and int(known) >= times:
        return after
    dims = (times, batch, size)
    there = e.compare(e.iota(S32, dims, 0), e.broadcast_to(e.convert(length, S32), dims), "LT")
    return [e.select(there, value, e.like(value, 0)) for value in after]


@rule("GRUBlockCell", needs=("dot",), ranks=(2, 2, 2, 2, 1, 1))
def gru_cell(call: Call) -> Sequence[Value]:
    """r, u, c and h."""
    e, (x, hidden, gates, candidate, gate_bias, bias) = call.emit, call.operands
    size = hidden.shape.dims[1]
    call.need(gates.shape.dims == (x.shape.dims[1] + size, 2 * size) and candidate.shape.dims == (x.shape.dims[1] + size, size),
              f"input {x.shape}, state {hidden.shape} and weights {gates.shape} do not fit together")
    both = e.make("logistic", _affine(e, e.concatenate([x, hidden], 1), gates, gate_bias))
    reset, update = e.part(both, 1, 0, size), e.part(both, 1, size, 2 * size)
    fresh = e.make("tanh", _affine(e, e.concatenate([x, e.multiply(hidden, reset)], 1), candidate, bias))
    kept = e.multiply(update, hidden)
    return [reset, update, fresh, e.add(kept, e.multiply(e.subtract(e.like(update, 1), update), fresh))]
