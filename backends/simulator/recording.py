"""What a sequencer does while periods are recorded: as always, and each decision is told to the periods under way."""

from __future__ import annotations

from nxcc.backends.simulator import timed
from nxcc.backends.simulator.sequencer import STEPS, Frame, Sequencer, value_of
from nxcc.backends.simulator.timed import Step


def _work(sequencer: Sequencer, step: Step) -> bool:
    _, _, _, reads, writes, _, _, computed, _, _, _ = step
    for period in sequencer.run_.periods:
        for extent in (*reads, *writes):
            period.fixed(sequencer.number, extent[5])
        for _, terms, _ in computed:
            period.fixed(sequencer.number, terms)
    return STEPS[timed.WORK](sequencer, step)


def _wait(sequencer: Sequencer, step: Step) -> bool:
    _, index, index_terms, value, value_terms = step
    run, registers = sequencer.run_, sequencer.registers
    place, wanted = value_of(index, index_terms, registers), value_of(value, value_terms, registers)
    for period in run.periods:
        period.wait(sequencer.number, place, index_terms, wanted, value_terms, run.semaphores[place])
    return STEPS[timed.WAIT](sequencer, step)


def _set(sequencer: Sequencer, step: Step) -> bool:
    _, _, register, _, terms = step
    if register >= 0:
        for period in sequencer.run_.periods:
            period.registers[sequencer.number][register] = period.of(sequencer.number, terms)
    return STEPS[timed.SET](sequencer, step)


def _alu(sequencer: Sequencer, step: Step) -> bool:
    _, _, register, compute, a, b = step
    values = value_of(a[0], a[1], sequencer.registers), value_of(b[0], b[1], sequencer.registers)
    for period in sequencer.run_.periods:
        period.compute(sequencer.number, register, compute, a, b, values)
    STEPS[timed.ALU](sequencer, step)
    if register in sequencer.unknown:
        _stands(sequencer, register)
    return False


def _load(sequencer: Sequencer, step: Step) -> bool:
    STEPS[timed.LOAD](sequencer, step)
    _stands(sequencer, step[1])
    return False


def _stands(sequencer: Sequencer, register: int) -> None:
    for period in sequencer.run_.periods:
        period.registers[sequencer.number][register] = 0


def _loop(sequencer: Sequencer, step: Step) -> bool:
    _, _, register, _, terms, _ = step
    for period in sequencer.run_.periods:
        period.fixed(sequencer.number, terms)
    _stands(sequencer, register)
    return STEPS[timed.LOOP](sequencer, step)


def _again(sequencer: Sequencer, step: Step) -> bool:
    frame = sequencer.frames[-1]
    pauses = STEPS[timed.AGAIN](sequencer, step)
    if sequencer.frames and sequencer.frames[-1] is frame:
        for period in sequencer.run_.periods:
            period.registers[sequencer.number][frame.register] = period.frames.get(id(frame), 0)
    else:
        _ended(sequencer, frame)
    return pauses


def _leave(sequencer: Sequencer, step: Step) -> bool:
    frame = next(frame for frame in reversed(sequencer.frames) if frame.register < 0)
    _decided(sequencer, step)
    STEPS[timed.LEAVE](sequencer, step)
    if not sequencer.frames or sequencer.frames[-1] is not frame:
        _ended(sequencer, frame)
    return False


def _if(sequencer: Sequencer, step: Step) -> bool:
    _decided(sequencer, step)
    return STEPS[timed.IF](sequencer, step)


def _decided(sequencer: Sequencer, step: Step) -> None:
    for period in sequencer.run_.periods:
        period.fixed(sequencer.number, ((step[3], 1),))


def _ended(sequencer: Sequencer, frame: Frame) -> None:
    """A loop that had been open when a period began has ended in it."""
    for period in sequencer.run_.periods:
        if period.frames.get(id(frame)):
            period.periods = 0


def _call(sequencer: Sequencer, step: Step) -> bool:
    _, _, _, _, register, advance = step
    if advance:
        for period in sequencer.run_.periods:
            period.fixed(sequencer.number, ((register, 1),))
    return STEPS[timed.CALL](sequencer, step)


_OWN = {timed.WORK: _work, timed.WAIT: _wait, timed.SET: _set, timed.ALU: _alu, timed.LOOP: _loop, timed.AGAIN: _again,
        timed.LEAVE: _leave, timed.IF: _if, timed.CALL: _call, timed.LOAD: _load}
RECORDED = tuple([_OWN.get(kind, handler) for kind, handler in enumerate(STEPS)])
"""As sequencer.STEPS."""
