"""Random machine instructions from their declarations: any that can be encoded, legal on a target or not."""

from hypothesis import strategies as st

from nxcc.backends.isa import instructions as _declared  # noqa: F401
from nxcc.backends.isa.layout import ELEMENT_TYPES, is_trigger
from nxcc.backends.isa.program import (
    INSTRUCTIONS,
    AccessPattern,
    Affine,
    DmaPattern,
    FieldKind,
    Function,
    Instruction,
    Memory,
    Program,
    Signal,
    Wait,
)

INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
DTYPES = st.sampled_from([ELEMENT_TYPES[number] for number in sorted(ELEMENT_TYPES)])
AFFINES = st.builds(
    lambda constant, terms: Affine(constant, tuple(sorted(terms.items()))), INT64,
    st.dictionaries(st.integers(0, 63), INT64.filter(bool), max_size=4))
DIMS = st.lists(st.tuples(st.integers(-32768, 32767), st.integers(0, 65535)), max_size=4).map(tuple)
BYTE = st.integers(0, 255)


def pattern(spec):
    return st.builds(AccessPattern, st.sampled_from(spec.memories), DTYPES, BYTE, BYTE, AFFINES, DIMS)


def field_value(spec):
    return {
        FieldKind.FLAG: st.booleans(), FieldKind.INT: INT64, FieldKind.FLOAT: st.floats(allow_nan=False),
        FieldKind.AFFINE: AFFINES,
        FieldKind.REGISTER: st.integers(0, 63), FieldKind.FUNCTION: st.integers(0, 65535),
        FieldKind.INTS: st.lists(INT32, max_size=8).map(tuple), FieldKind.ENUM: st.sampled_from(spec.choices or ("",)),
    }[spec.kind]


@st.composite
def instruction_of(draw, spec):
    fields = {f.name: draw(field_value(f)) for f in spec.fields if f.default is None or draw(st.booleans())}
    operands = {}
    for o in spec.operands:
        if o.optional and draw(st.booleans()):
            continue
        rank = len(fields["sizes"]) if o.dma and is_trigger(spec) else 0
        dma = st.builds(DmaPattern, st.sampled_from([m for m in o.memories if m is not Memory.PSUM] or [Memory.HBM]), DTYPES,
                        AFFINES, st.tuples(*[INT64] * rank))
        operands[o.name] = draw(dma if o.dma else pattern(o))
    return Instruction(spec, operands, fields, tuple(draw(st.lists(st.builds(Wait, AFFINES, AFFINES), max_size=4))),
                       tuple(draw(st.lists(st.builds(Signal, AFFINES, INT32), max_size=4))), draw(INT32))


@st.composite
def functions(draw):
    """A function with a stream for some engines, of instructions that these engines run."""
    streams = {}
    for engine in draw(st.lists(st.sampled_from(sorted({e for s in INSTRUCTIONS.values() for e in s.engines},
                                                       key=lambda e: e.value)), max_size=2, unique=True)):
        specs = [s for s in INSTRUCTIONS.values() if engine in s.engines]
        streams[engine] = draw(st.lists(st.sampled_from(specs).flatmap(instruction_of), max_size=4))
    return Function(draw(st.text(max_size=5)), streams)


PROGRAMS = st.builds(Program, st.lists(functions(), max_size=2), st.lists(functions(), max_size=2), st.integers(0, 1 << 18),
                     st.integers(0, 1 << 34), st.integers(0, 256))

