"""The encoding loses nothing, and no bytes crash the decoder."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nxcc.backends.isa.decode import decode
from nxcc.backends.isa.encode import encode
from nxcc.backends.isa.layout import ENCODING, SLOT_BYTES, EngineImage
from nxcc.backends.isa.program import INSTRUCTIONS, Engine, Function, Program
from nxcc.ir.diagnostics import CompileError

from harness.random_machine import PROGRAMS, instruction_of

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("spec", INSTRUCTIONS.values(), ids=lambda s: s.name)
@given(data=st.data())
@settings(QUICK, max_examples=8)
def test_instruction_survives_encoding(spec, data):
    program = Program([], [Function("main", {spec.engines[0]: data.draw(st.lists(instruction_of(spec), max_size=3))})], 1, 2, 3)
    images, table = encode(program)
    assert decode(images, json.loads(json.dumps(table))) == program


@given(PROGRAMS)
@QUICK
def test_program_survives_encoding_and_json(program):
    images, table = encode(program)
    through_json = {e: EngineImage(json.loads(json.dumps(i.json)), i.binary) for e, i in images.items()}
    assert decode(through_json, json.loads(json.dumps(table))) == program


def table_of(slots):
    return {"encoding": ENCODING, "functions": [{"name": "f", "entry": True, "streams": {"DVE": [0, slots]}}],
            "sbuf_bytes": 0, "hbm_bytes": 0, "semaphores": 0}


@given(st.binary(min_size=SLOT_BYTES, max_size=SLOT_BYTES))
@settings(QUICK, max_examples=100)
def test_random_bytes_are_one_error_or_encode_to_themselves(raw):
    check_bytes(raw)


@given(PROGRAMS, st.data())
@settings(QUICK, max_examples=60)
def test_flipped_bytes_are_one_error_or_encode_to_themselves(program, data):
    images, table = encode(program)
    for image in images.values():
        if image.binary:
            raw = bytearray(image.binary)
            raw[data.draw(st.integers(0, min(len(raw), 80) - 1))] ^= 1 << data.draw(st.integers(0, 7))
            image.binary = bytes(raw)
    try:
        again = decode(images, table)
    except CompileError as error:
        assert error.code.name == "NXC0403" and error.where and error.why
        return
    assert {e: i.binary for e, i in encode(again)[0].items()} == {e: i.binary for e, i in images.items()}


def check_bytes(raw):
    try:
        program = decode({Engine.VECTOR: EngineImage({"dma": []}, raw)}, table_of(1))
    except CompileError as error:
        assert error.code.name == "NXC0403" and error.where and error.why
        return
    assert encode(program)[0][Engine.VECTOR].binary == raw


TEXT = st.text(max_size=3)
JSON = st.recursive(st.none() | st.booleans() | st.integers() | TEXT | st.floats(),
                    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2), max_leaves=4)


def paths(node, prefix=()):
    yield prefix
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from paths(child, (*prefix, key))


@given(instruction_of(INSTRUCTIONS["dma_copy"]), JSON, st.data())
@settings(QUICK, max_examples=100)
def test_damaged_json_is_one_error_or_the_same_program(instruction, damage, data):
    program = Program([], [Function("main", {Engine.SYNC: [instruction]})])
    images, table = encode(program)
    documents = copy.deepcopy({"json": images[Engine.SYNC].json, "table": table})
    path = data.draw(st.sampled_from([p for p in paths(documents) if p]))
    node = documents
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = damage
    try:
        again = decode({Engine.SYNC: EngineImage(documents["json"], images[Engine.SYNC].binary)}, documents["table"])
    except CompileError as error:
        assert error.code.name == "NXC0403" and error.where and error.why
        return
    assert again.entries[:1] == program.entries or path[:2] == ("table", "functions")
