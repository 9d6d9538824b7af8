"""The cost model against the documented formulas and the published measurements behind them."""

import pytest

from nxcc.backends.cost import RULES, absent, cost, cycles, explain, table_load, transfer
from nxcc.backends.isa.program import INSTRUCTIONS, Engine
from nxcc.backends.target import load_target
from nxcc.ir.dtypes import BF16, F32, S32

from harness.machine import PARTITION, hbm, linear, op, psum, sbuf

V2 = load_target("v2")
PE, VECTOR, SCALAR, GPSIMD = Engine.PE, Engine.VECTOR, Engine.SCALAR, Engine.GPSIMD


def matmul(n, dtype=BF16, m=128, **fields):
    return op("matmul", stationary=sbuf(m, dtype=dtype), moving=sbuf(n, dtype=dtype), out=psum(n), **fields)


CASES = {
    "bf16 pass takes 586 cycles": (matmul(512), PE, 586),
    "f32 pass takes four": (matmul(512, F32), PE, 2341),
    "tf32 runs at full rate": (matmul(512, F32, tf32=True), PE, 586),
    "small pass takes the least interval": (matmul(1), PE, 74),
    "two f32 operands": (op("tensor_tensor", a=sbuf(512), b=sbuf(512), out=sbuf(512), op="add"), VECTOR, 1024),
    "one operand in psum": (op("tensor_tensor", a=psum(512), b=sbuf(512), out=sbuf(512), op="add"), VECTOR, 512),
    "packed bf16": (op("tensor_tensor", a=sbuf(512, dtype=BF16), b=sbuf(512, dtype=BF16), out=sbuf(512, dtype=BF16), op="add"),
                    VECTOR, 512),
    "large stride halves the rate": (op("tensor_copy", data=sbuf(512, stride=5), out=sbuf(512)), VECTOR, 1024),
    "16 bytes of stride do not": (op("tensor_copy", data=sbuf(512, stride=4), out=sbuf(512)), VECTOR, 512),
    "least interval": (op("tensor_copy", data=sbuf(8), out=sbuf(8)), VECTOR, 64),
    "reciprocal": (op("reciprocal", data=sbuf(64), out=sbuf(64)), VECTOR, 512),
    "bf16 sum": (op("tensor_reduce", data=sbuf(512, dtype=BF16), out=sbuf(1, dtype=BF16), op="add"), VECTOR, 256),
    "zero in bf16": (op("memset", out=sbuf(512, dtype=BF16)), VECTOR, 256),
    "activation": (op("activation", data=psum(512), out=sbuf(512), function="exp"), SCALAR, 512),
    "activation with sum": (op("activation", data=psum(512), out=sbuf(512), function="exp", sum=sbuf(1)), SCALAR, 576),
    "gpsimd starts slowly": (op("iota", out=sbuf(10, dtype=S32), base=0, steps=(1,)), GPSIMD, 160),
    "gpsimd integers": (op("tensor_tensor", a=sbuf(512, dtype=S32), b=sbuf(512, dtype=S32), out=sbuf(512, dtype=S32), op="add"),
                        GPSIMD, 1174),
    "trigger takes 22 ns": (op("dma_copy", source=hbm(0, 4), destination=hbm(64, 4), sizes=(4,)), Engine.SYNC, 31),
}


@pytest.mark.parametrize(("instruction", "engine", "expected"), CASES.values(), ids=CASES.keys())
def test_cycles(instruction, engine, expected):
    assert cycles(instruction, engine, V2) == expected


def load(row_bytes, partitions=128, start=0):
    return op("dma_copy", source=hbm(0, row_bytes, 4), destination=linear(start * PARTITION, PARTITION, 4),
              sizes=(partitions, row_bytes // 4))


@pytest.mark.parametrize(("row_bytes", "microseconds"), [(32, 1.17), (512, 1.17), (2048, 1.17), (4096, 1.93), (16384, 7.71)])
def test_transfers_follow_the_published_size_curve(row_bytes, microseconds):
    assert V2.nanoseconds(transfer(load(row_bytes), V2).interval) / 1000 == pytest.approx(microseconds, abs=0.01)


def test_fewer_partitions_keep_fewer_engines_busy():
    whole, eighth = transfer(load(4096), V2), transfer(load(4096, 16), V2)
    assert (whole.engines, eighth.engines) == (16, 2)
    assert whole.data == eighth.data
    assert transfer(load(4096, 8, start=4), V2).engines == 2
    assert transfer(load(4096, 8, start=24), V2).first_engine == 3


def test_short_runs_cost_as_512_bytes():
    columns = op("dma_copy", source=hbm(0, 4, 512), destination=linear(0, PARTITION, 4), sizes=(128, 64))
    row = transfer(columns, V2)
    assert (row.descriptors, row.run_bytes) == (128 * 64, 4)
    assert row.data == pytest.approx(128 * 64 / 16 * 512 / 17e9 * V2.ticks_per_second, abs=1)


def test_transfer_within_hbm_uses_all_engines():
    row = transfer(op("dma_copy", source=hbm(0, 4), destination=hbm(1 << 16, 4), sizes=(8192,)), V2)
    assert (row.engines, row.descriptors, row.bytes) == (16, 1, 32768)


def test_transpose_and_accumulation_multiply_the_data_time():
    plain = transfer(load(4096), V2).data
    added = load(4096)
    added.fields["accumulate"] = "add"
    assert transfer(added, V2).data == pytest.approx(2 * plain, abs=2)


def test_dependent_small_activation_takes_264_cycles():
    row = cost(op("activation", data=sbuf(1), out=sbuf(1), function="copy"), SCALAR, V2)
    assert (row.busy + row.latency) / V2.ticks_per_cycle(SCALAR) == 264


def test_tables_are_loaded_between_different_functions():
    assert table_load("exp", "exp", V2) == table_load("exp", "copy", V2) == 0
    assert V2.nanoseconds(table_load("exp", "gelu", V2)) == pytest.approx(150 / 1.4, abs=1)


def test_every_instruction_has_a_cost_and_an_explanation():
    assert set(RULES) == set(INSTRUCTIONS)
    for name in INSTRUCTIONS:
        assert explain(name, V2).startswith(f"{name}: ")


def test_explanation_names_source_and_status():
    assert "instruction_costs.reciprocal_cycles = 8 [documented] ISA26" in explain("reciprocal", V2)


class Traced:
    """A target that notes the dotted path of every fact that is read from it."""

    def __init__(self, node, path, seen):
        self.node, self.path, self.seen = node, path, seen

    def __getattr__(self, name):
        return self._child(getattr(self.node, name), name)

    def __getitem__(self, key):
        return self._child(self.node[key], key.name.lower() if isinstance(key, Engine) else None)

    def _child(self, value, name):
        path = f"{self.path}.{name}" if self.path and name else name or self.path
        if isinstance(value, type(V2.ticks)):
            return lambda *arguments: value.__func__(self, *arguments)
        if path in V2.facts:
            self.seen.add(path)
            return value
        return Traced(value, path, self.seen)


DMA = [op("dma_copy", source=hbm(0, 2048, 4), destination=linear(0, PARTITION, 4), sizes=(128, 512), accumulate="add"),
       op("dma_transpose", source=hbm(0, 256, 2, dtype=BF16), destination=linear(0, PARTITION, 2, dtype=BF16),
          sizes=(128, 128))]


READING = [*[case[:2] for case in CASES.values()], *[(instruction, Engine.SYNC) for instruction in DMA]]


@pytest.mark.parametrize(("instruction", "engine"), READING)
def test_every_constant_that_a_cost_reads_is_explained(instruction, engine):
    seen: set[str] = set()
    traced = Traced(V2, "", seen)
    cycles(instruction, engine, traced)
    if instruction.spec.name.startswith("dma"):
        transfer(instruction, traced)
    text = explain(instruction.spec.name, V2)
    assert seen
    for path in seen - {"ticks_per_second", "partitions"}:
        assert f"  {path} = " in text, path


def test_what_is_uncertain_about_a_constant_is_said():
    assert "uncertain: cost of a PE pass" in explain("matmul", V2)
    assert "uncertain: dma.start_ns" in explain("dma_copy", V2)
    assert "uncertain: cost of a PE pass" not in explain("tensor_copy", V2)


def test_ports_that_exclude_others_are_said():
    assert "while Vector uses SBUF, GpSimd cannot [documented]" in explain("tensor_copy", V2)
    assert "ports" not in explain("dma_copy", V2)


@pytest.mark.parametrize("target", ["v1", "v2"])
def test_every_instruction_says_what_it_costs_or_why_it_is_not_there(target: str) -> None:
    """Formula, constants with status and source, for all that a target runs."""
    facts = load_target(target)
    for name in INSTRUCTIONS:
        text = explain(name, facts)
        if absent(name, facts):
            assert f"{target} has no such instruction" in text and "cost in" not in text
        else:
            assert "cost in cycles: " in text
            assert name == "halt" or "] " in text, name


def test_absent_instructions_are_those_that_the_verifier_refuses() -> None:
    assert absent("iota", load_target("v1")) == "no GpSimd engine"
    assert absent("register_alu", load_target("v1")) == "no registers"
    assert absent("while", load_target("v1")) == "no control flow"
    assert not any(absent(name, V2) for name in INSTRUCTIONS)
