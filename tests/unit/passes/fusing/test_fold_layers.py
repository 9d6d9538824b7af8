"""Equal layers as one computation, and written out again."""

import numpy as np

from nxcc.backends.capability.rows import TargetRowCapacity
from nxcc.backends.target import load_target
from nxcc.ir.hlo.module import Module
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify
from nxcc.passes.common_subexpressions import CommonSubexpressions
from nxcc.passes.fusing.fold_layers import FoldLayers, UnfoldLayers
from nxcc.passes.fusing.fusion import Fusion


def layers(count: int, odd: int = -1) -> Module:
    """Dense layers with an input added; layer `odd` has another function. All read the same shift."""
    lines = ["HloModule m", "ENTRY e {", " x0 = f32[4,8] parameter(0)", " shift = f32[8] parameter(1)"]
    for n in range(count):
        lines += [f" w{n} = f32[8,8] parameter({n + 2})",
                  f" d{n} = f32[4,8] dot(x{n}, w{n}), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}",
                  f" sh{n} = f32[4,8] broadcast(shift), dimensions={{1}}", f" a{n} = f32[4,8] add(d{n}, sh{n})",
                  f" t{n} = f32[4,8] {'sine' if n == odd else 'tanh'}(a{n})", f" x{n + 1} = f32[4,8] add(t{n}, x{n})"]
    module = read_text("\n".join([*lines, f" ROOT r = (f32[4,8], f32[4,8]) tuple(x{count}, x2)", "}"]))
    CommonSubexpressions().run(module)
    return module


def values(module: Module) -> list[np.ndarray]:
    inputs = [np.random.default_rng(n).normal(size=p.shape.dims).astype(np.float32)
              for n, p in enumerate(module.entry.parameters)]
    return flatten(evaluate(module, inputs))


def calls(module: Module) -> list:
    return [i for i in module.entry.instructions if i.opcode == "call"]


def test_equal_layers_become_calls_of_one_computation():
    module, wanted = layers(8), values(layers(8))
    assert FoldLayers().run(module)
    verify(module)
    assert len(calls(module)) >= 5 and len({c.called[0] for c in calls(module)}) == 1
    body = calls(module)[0].called[0]
    assert sum(i.opcode == "dot" for i in body.instructions) == 1
    assert any(i.opcode == "broadcast" for i in body.instructions), "what is free is inside, for fusion to take"
    for got, want in zip(values(module), wanted, strict=True):
        assert np.array_equal(got, want)


def test_regions_of_a_layer_are_shared_when_it_is_written_out_again():
    module, wanted = layers(8), values(layers(8))
    names = {i.name for i in module.entry.instructions}
    FoldLayers().run(module)
    Fusion(TargetRowCapacity(load_target("v2"))).run(module)
    assert UnfoldLayers().run(module)
    verify(module)
    assert not calls(module) and not module.layers
    fusions = [i for i in module.entry.instructions if i.opcode == "fusion"]
    assert len(fusions) == 8 and len({f.called[0] for f in fusions}) < 8
    assert {f.name.removesuffix(".fused") for f in fusions} == {f"x{n + 1}" for n in range(8)} <= names
    for got, want in zip(values(module), wanted, strict=True):
        assert np.allclose(got, want, rtol=1e-6)


def test_a_layer_that_differs_ends_the_run():
    module = layers(10, odd=2)
    assert FoldLayers().run(module)
    assert len(calls(module)) == 6
    assert any(i.opcode == "sine" for i in module.entry.instructions)


def test_few_layers_stay():
    module = layers(3)
    assert not FoldLayers().run(module) and not UnfoldLayers().run(module)
