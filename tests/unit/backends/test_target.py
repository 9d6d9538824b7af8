"""Target files: aliases, provenance, and the facts that others compute with."""

import itertools
import re
import tomllib
from collections.abc import Iterator
from importlib import resources

import pytest

from nxcc.backends.isa.program import Engine, Memory
from nxcc.backends.target import Status, load_target, read_target
from nxcc.backends.targets import CHIPS
from nxcc.ir.diagnostics import CompileError

NAMES = sorted(CHIPS)


def document(name: str) -> dict:
    return tomllib.loads(resources.files("nxcc.backends.targets").joinpath(f"{name}.toml").read_text())


@pytest.mark.parametrize(("alias", "name"), [("inf2", "v2"), ("trn1", "v2"), ("TRN1N", "v2"), ("v2", "v2")])
def test_alias_means_its_generation(alias, name):
    assert load_target(alias) is load_target(name)


def test_unknown_target_lists_the_known():
    with pytest.raises(CompileError, match="NXC0001.*trn2.*inf2"):
        load_target("trn2")


def leaves(table: dict, path: str = "") -> Iterator[tuple[str, object]]:
    """Everything that a file says but names and what is uncertain: dotted path and what stands there."""
    for key, entry in table.items():
        where = f"{path}.{key}" if path else key
        if isinstance(entry, dict) and "value" not in entry:
            yield from leaves(entry, where)
        elif not isinstance(entry, str) and key != "uncertain":
            yield where, entry


def declared_sources(name: str) -> set[str]:
    """Abbreviations that the head of a file explains, as in `ARCH = ..; ISA26, ISA32 = ..`."""
    text = resources.files("nxcc.backends.targets").joinpath(f"{name}.toml").read_text()
    head = " ".join(line[1:].strip() for line in itertools.takewhile(lambda line: line.startswith("#"), text.splitlines()))
    parts = head.partition("Sources: ")[2].split("; ")
    return {word for part in parts for word in part.split(" = ")[0].split(", ")}


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_has_status_and_source(name):
    written = dict(leaves(document(name)))
    assert all(isinstance(entry, dict) and set(entry) == {"value", "status", "source"} for entry in written.values())
    assert all(entry["status"] in ("documented", "measured", "derived", "assumed") for entry in written.values())
    assert all(entry["source"].strip() for entry in written.values())
    assert len(written) > 100 and written.keys() == load_target(name).facts.keys()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_documented_or_measured_names_a_source_of_the_head(name):
    known = declared_sources(name)
    for path, fact in load_target(name).facts.items():
        if fact.status in (Status.DOCUMENTED, Status.MEASURED) and "throttles" not in fact.source:
            assert known & set(re.findall(r"\w+", fact.source)), f"{path}: {fact.source}"


@pytest.mark.parametrize("name", NAMES)
def test_abbreviations_of_sources_are_explained(name):
    words = {word for fact in load_target(name).facts.values() for word in re.findall(r"\b[A-Z]{2,}[0-9]*\b", fact.source)}
    ordinary = {"BERT", "DMA", "GB", "HBM", "JSON", "MB", "PE", "PSUM", "SBUF", "TFLOPS", "XLM"}
    assert words - ordinary <= declared_sources(name)


def test_what_is_as_on_another_target_is_the_same_there():
    """And is assumed: that one machine is like another is written nowhere."""
    there = load_target("v2").facts
    for path, fact in load_target("v1").facts.items():
        if fact.source == "as v2":
            assert (fact.value, fact.status) == (there[path].value, Status.ASSUMED), path


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
    assert v2.members[Engine.GPSIMD] == "Pool"


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
    assert v1.members[Engine.VECTOR] == "Pool"
