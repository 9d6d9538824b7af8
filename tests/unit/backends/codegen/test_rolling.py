"""Repeated calls become loops: what repeats, what does not, and that the machine does the same."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nxcc import cli
from nxcc.backends.codegen import mainstream
from nxcc.backends.codegen.code import DeviceCode, DeviceNode
from nxcc.backends.codegen.generator import generate
from nxcc.backends.codegen.rolling import Call, Roll, call_of, find_rolls, rolled
from nxcc.backends.isa import instructions as isa
from nxcc.backends.isa.debug import debug_indices
from nxcc.backends.isa.program import Affine, Engine, Instruction
from nxcc.backends.isa.verifier import verify_program
from nxcc.backends.simulator.functional import Machine
from nxcc.backends.simulator.strict.machine import StrictMachine
from nxcc.backends.simulator.timing import time_program
from nxcc.backends.target import load_target
from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text

V2 = load_target("v2")


def calls(*rows: tuple[int, int]) -> list[Call]:
    """Calls of (function, address)."""
    return [call_of({Engine.PE: [Instruction(isa.control.REGISTER_SET, fields={"register": 2, "value": Affine(address)}),
                                 Instruction(isa.control.CALL, fields={"function": function}, debug=number)]})
            for number, (function, address) in enumerate(rows)]


def test_turns_that_advance_evenly_are_one_loop():
    rows = [(9, 0), *((n % 2, 100 * (n % 2) + n // 2) for n in range(8)), (9, 0)]
    assert find_rolls(calls(*rows)) == [Roll(1, 2, 4)]


def test_addresses_that_jump_end_a_loop():
    rows = [(0, a) for a in (0, 5, 10, 15, 99, 100, 101, 102)]
    assert find_rolls(calls(*rows)) == [Roll(0, 1, 4), Roll(4, 1, 4)]


def test_two_turns_and_unequal_ones_stay_as_they_are():
    assert find_rolls(calls((0, 1), (1, 2), (0, 3), (1, 4))) == []
    assert find_rolls(calls((0, 0), (1, 0), (2, 0), (3, 0))) == []
    assert find_rolls(calls((0, 0), (0, 1), (0, 3), (0, 7))) == []


def test_what_alternates_is_a_turn_of_twice_the_length():
    rows = [(n % 2, (n // 2 % 2) * 1000 + n // 2) for n in range(16)]
    assert find_rolls(calls(*rows)) == [Roll(0, 4, 4)]


def test_a_loop_adds_what_a_turn_advances():
    stream = rolled(calls(*((7, 40 * n) for n in range(5))), Roll(0, 1, 5), 56)[Engine.PE]
    assert [i.spec.name for i in stream] == ["loop", "register_set", "call", "end"]
    assert stream[0].fields == {"register": 56, "count": Affine(5)}
    assert stream[1].fields["value"] == Affine(0, ((56, 40),))
    assert stream[2].fields["debug_step"] == 1 and list(debug_indices(stream)) == [range(0), range(0), range(5), range(0)]


def layers(count: int) -> str:
    """Dense layers whose weights are numbered from the last layer to the first."""
    lines = ["HloModule layers", "ENTRY e {", "  x0 = f32[24,32] parameter(0)"]
    for n in range(count):
        number = 2 * (count - n)
        lines += [f"  w{n} = f32[32,32] parameter({number - 1})", f"  b{n} = f32[24,32] parameter({number})",
                  f"  d{n} = f32[24,32] dot(x{n}, w{n}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
                  f"  sum{n} = f32[24,32] add(d{n}, b{n})", f"  x{n + 1} = f32[24,32] tanh(sum{n})"]
    return "\n".join([*lines, f"  ROOT r = f32[24,32] copy(x{count})", "}"])


def generated(text: str, optlevel: int = 2) -> tuple[DeviceCode, list[np.ndarray], np.ndarray]:
    module = read_text(text)
    parameters = module.entry.parameters
    random = np.random.default_rng(1)
    values = [(random.normal(size=p.shape.dims) * 0.3).astype(np.float32) for p in parameters]
    names = tuple(f"in{n}" for n in range(len(parameters)))
    shapes = {name: p.shape for name, p in zip(names, parameters, strict=True)} | {"out": module.entry.root.shape}
    return generate([DeviceNode("n", module, names, ("out",))], shapes, V2, optlevel=optlevel), values, evaluate(module, values)


def size(code: DeviceCode) -> int:
    return sum(len(stream) for _, _, stream in code.program.streams())


@pytest.mark.parametrize("machine", [Machine, StrictMachine])
def test_rolled_layers_compute_what_the_layers_do(machine):
    code, values, wanted = generated(layers(9))
    assert any(i.spec is isa.control.LOOP for i in code.program.entries[0].streams[Engine.PE])
    verify_program(code.program, V2, hbm_bytes=code.program.hbm_bytes)
    ran = machine(code.program, code.program.hbm_bytes)
    for number, value in enumerate(values):
        ran.write(code.bindings[f"in{number}"].address, value)
    ran.run(0)
    out = code.bindings["out"]
    assert np.abs(ran.read(out.address, out.dtype, out.dims) - wanted).max() < 1e-5


def test_code_does_not_grow_with_equal_layers():
    assert size(generated(layers(8))[0]) == size(generated(layers(24))[0])
    assert size(generated(layers(8), 0)[0]) < size(generated(layers(24), 0)[0])


def test_rolling_costs_no_time(monkeypatch):
    code, _, _ = generated(layers(9))
    monkeypatch.setattr(mainstream, "find_rolls", lambda calls: [])
    plain, _, _ = generated(layers(9))
    ours, others = (time_program(c.program, V2).ticks for c in (code, plain))
    assert size(code) < size(plain) and ours <= others * 1.01


def test_times_and_listings_name_each_layer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layers.hlo").write_text(layers(9))
    assert cli.main(["compile", "layers.hlo", "-q", "--disable-pass", "chain-regions"]) == 0
    assert cli.main(["profile", "layers.neff", "--json"]) == 0
    named = json.dumps(json.loads(capsys.readouterr().out))
    assert all(f"x{n}.fused" in named for n in range(1, 10))
    assert cli.main(["disasm", "layers.neff", "--hlo", "x7.fused"]) == 0
    assert "entry" in capsys.readouterr().out
