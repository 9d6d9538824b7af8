"""Target files: aliases, provenance, and the facts that others compute with."""

import tomllib
from importlib import resources

import pytest

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.target import ALIASES, load_target, read_target
from nxcc.ir.diagnostics import CompileError

NAMES = sorted(set(ALIASES.values()))


def document(name: str) -> dict:
    return tomllib.loads(resources.files("nxcc.backends.targets").joinpath(f"{name}.toml").read_text())


@pytest.mark.parametrize(("alias", "name"), [("inf2", "v2"), ("trn1", "v2"), ("TRN1N", "v2"), ("v2", "v2")])
def test_alias_means_its_generation(alias, name):
    assert load_target(alias) is load_target(name)


def test_unknown_target_lists_the_known():
    with pytest.raises(CompileError, match="NXC0001.*trn2.*inf2"):
        load_target("trn2")


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_says_where_it_is_from(name):
    target = load_target(name)
    assert len(target.facts) > 100
    assert all(fact.source for fact in target.facts.values())


@pytest.mark.parametrize("name", NAMES)
def test_tick_divides_every_cycle(name):
    target = load_target(name)
    assert all(target.ticks_per_cycle(e) * f.clock_hz == target.ticks_per_second for e, f in target.engines.items())


def test_v2_is_the_documented_machine():
    v2 = load_target("v2")
    assert v2.sbuf.usable_bytes == 176 * 1024
    assert v2.psum.banks * v2.psum.bank_bytes == v2.psum.partition_bytes
    assert v2.engines[Engine.PE].reads == (Memory.SBUF,)
    assert [v2.ticks_per_cycle(e) for e in (Engine.PE, Engine.SCALAR, Engine.VECTOR)] == [2, 4, 5]
    assert v2.engine_of_member("Pool") is Engine.GPSIMD


@pytest.mark.parametrize(("partitions", "starts"), [(0, ()), (1, (0, 32, 64, 96)), (33, (0, 64)), (65, (0,)), (129, ())])
def test_start_rule_depends_on_partition_count(partitions, starts):
    assert load_target("v2").start_partitions(partitions) == starts


def test_misspelt_key_is_refused():
    wrong = document("v2")
    wrong["dma"]["enginse"] = wrong["dma"].pop("engines")
    with pytest.raises(AssertionError, match="enginse"):
        read_target(wrong)


def test_v1_lacks_what_is_documented_as_missing():
    v1 = load_target("inf1")
    assert Engine.GPSIMD not in v1.engines and "f32" not in v1.tensor.passes
    assert not (v1.features.control_flow or v1.features.registers or v1.features.dma_cast)
    assert v1.engine_of_member("Pool") is Engine.VECTOR
