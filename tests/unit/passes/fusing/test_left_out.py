"""Of many equal layers passes see a few: the program is the one that they make of all."""

from __future__ import annotations

import re

import pytest

from nxcc.backends.isa.text import program_text
from nxcc.compiler.console.progress import INFO, Journal
from nxcc.compiler.driver import Build, compile_module
from nxcc.compiler.options import options_from
from nxcc.ir.hlo.text.reader import read_text
from nxcc.passes import pipeline
from nxcc.passes.fusing.left_out import LeftOut, leave_out

LAYERS = 10

LAYER = """
  up{n} = f32[16,64] parameter({up})
  down{n} = f32[64,16] parameter({down})
  gain{n} = f32[16] parameter({gain})
  old{n} = f32[8,16] parameter({old})
  eps{n} = f32[] constant({eps})
  square{n} = f32[8,16] multiply(x{n}, x{n})
  sum{n} = f32[8] reduce(square{n}, zero), dimensions={{1}}, to_apply=add
  shift{n} = f32[8] broadcast(eps{n}), dimensions={{}}
  mean{n} = f32[8] add(sum{n}, shift{n})
  root{n} = f32[8] rsqrt(mean{n})
  scale{n} = f32[8,16] broadcast(root{n}), dimensions={{0}}
  unit{n} = f32[8,16] multiply(x{n}, scale{n})
  wide{n} = f32[8,16] broadcast(gain{n}), dimensions={{1}}
  norm{n} = f32[8,16] multiply(unit{n}, wide{n})
  hidden{n} = f32[8,64] dot(norm{n}, up{n}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  bent{n} = f32[8,64] tanh(hidden{n}), metadata={{op_name="model/layer_{n}/tanh"}}
  back{n} = f32[8,16] dot(bent{n}, down{n}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  new{n} = f32[8,16] add(back{n}, old{n})
  {last}x{m} = f32[8,16] add(x{n}, new{n})"""

WEIGHTS = f"0-{3 * LAYERS - 1}"


def text(layers: int = LAYERS, caches: bool = True, **changes: str) -> str:
    """Layers of a norm, two products and something that is added and kept. changes: to the text of one layer in the middle."""
    lines = ["HloModule m" + (", input_output_alias={ " + ", ".join(
        f"{{{n + 1}}}: ({3 * layers + n}, {{}}, may-alias)" for n in range(layers)) + " }" if caches else "")]
    lines += ["add { a = f32[] parameter(0)\n  b = f32[] parameter(1)\n  ROOT r = f32[] add(a, b) }", "ENTRY e {"]
    lines += [f"  x0 = f32[8,16] parameter({4 * layers})", "  zero = f32[] constant(0)"]
    for n in range(layers):
        last = "" if caches or n < layers - 1 else "ROOT "
        layer = LAYER.format(n=n, m=n + 1, up=3 * n, down=3 * n + 1, gain=3 * n + 2, old=3 * layers + n, eps=1e-5, last=last)
        if n == layers // 2:
            for old, new in changes.items():
                assert old in layer
                layer = layer.replace(old, new)
        lines.append(layer)
    if caches:
        values = [f"x{layers}", *(f"new{n}" for n in range(layers))]
        lines.append(f"  ROOT t = ({', '.join(['f32[8,16]'] * len(values))}) tuple({', '.join(values)})")
    return "\n".join([*lines, "}"])


def shortened(source: str) -> LeftOut | None:
    return leave_out(read_text(source), frozenset(range(3 * LAYERS)))


def built(source: str, whole: bool, monkeypatch: pytest.MonkeyPatch, **options: object) -> Build:
    monkeypatch.setattr(pipeline, "leave_out", lambda *_: None if whole else leave_out(*_))
    return compile_module(read_text(source), options_from(weight_params=WEIGHTS, optlevel=2, **options))


@pytest.mark.parametrize("caches", [True, False])
@pytest.mark.parametrize("options", [{}, {"auto_cast": "matmult"}, {"auto_cast": "all"}, {"target": "v1"}], ids=str)
def test_the_program_is_that_of_all_layers(caches: bool, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    source = text(caches=caches)
    assert shortened(source) is not None
    builds = [built(source, whole, monkeypatch, **options) for whole in (False, True)]
    programs = [[program_text(code.program) for code in build.codes] for build in builds]
    assert programs[0] == programs[1]
    assert builds[0].tensors == builds[1].tensors
    assert builds[0].plan is not None and builds[1].plan is not None
    assert builds[0].plan.results == builds[1].plan.results and builds[0].plan.aliases == builds[1].plan.aliases
    rows = [build.codes[0].debug for build in builds]
    assert [row.op_name for row in rows[0]] == [row.op_name for row in rows[1]]
    # what passes made is numbered as it comes
    names = [{row.name for row in debug if re.match(r"(new|x|bent)\d", row.name)} for debug in rows]
    assert names[0] == names[1]


def test_passes_see_few_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    plain = pipeline._run_short

    def counted(left_out: LeftOut, *arguments: object) -> bool:
        seen.append(sum(i.opcode == "dot" for i in left_out.module.entry.instructions))
        assert plain(left_out, *arguments)
        return True

    monkeypatch.setattr(pipeline, "_run_short", counted)
    for layers in (LAYERS, 3 * LAYERS):
        compile_module(read_text(text(layers)), options_from(optlevel=2, weight_params=f"0-{3 * layers - 1}"))
    assert seen[0] == seen[1] < 2 * LAYERS


@pytest.mark.parametrize("changes", [
    {"constant(1e-05)": "constant(1e-04)"},
    {"dot(bent5, down5)": "dot(bent5, down4)"},
    {"add(back5, old5)": "add(back5, old4)"},
    {"add(x5, new5)": "add(x4, new5)"},
    {"parameter(17)": "parameter(17), sharding={replicated}"},
], ids=str)
def test_a_layer_that_is_not_like_the_others_stays(changes: dict) -> None:
    found = shortened(text(**changes))
    assert found is None or found.count < LAYERS // 2


def test_a_result_that_others_read_stays() -> None:
    source = text().replace("  ROOT t =", "  more = f32[8,16] add(new3, new4)\n  twice = f32[8,16] add(x10, more)\n  ROOT t =")
    assert shortened(source.replace("tuple(x10", "tuple(twice")) is None


def test_where_layers_do_not_come_back_passes_run_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = built(text(), True, monkeypatch)
    monkeypatch.setattr("nxcc.passes.fusing.fold_layers.stretch", lambda *_: None)
    again = built(text(), False, monkeypatch)
    assert program_text(again.codes[0].program) == program_text(whole.codes[0].program)


def test_whoever_hears_what_passes_count_hears_of_all_layers(capsys: pytest.CaptureFixture[str]) -> None:
    options = options_from(optlevel=2, auto_cast="matmult", weight_params=WEIGHTS)
    compile_module(read_text(text()), options, journal=Journal(INFO))
    assert f"autocast: {2 * LAYERS} dot now in bf16" in capsys.readouterr().out
