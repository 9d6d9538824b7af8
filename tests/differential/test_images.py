"""Image programs on the strict device against the oracle: chains of convolutions with what lies between them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from nxcc.backends.lowering.images.stages import Program
from nxcc.backends.target import load_target
from nxcc.compiler.driver import compile_module, pass_settings
from nxcc.compiler.options import options_from
from nxcc.compiler.runtime.loaded import load
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.hlo.oracle import evaluate, flatten
from nxcc.ir.hlo.text.reader import read_text
from nxcc.neff.writer import write_neff
from nxcc.passes.pipeline import run_pipeline

from harness.clocked import microseconds
from harness.device import check_text, random_inputs
from harness.images import TOLERANCES, Graph, check_images, images_in
from harness.whole import check_whole


def bottleneck(n: int, c: int, inner: int, size: int) -> str:
    g = Graph()
    x = g.input(n, c, size, size)
    y = g.relu(g.norm(g.conv(x, inner, 1)))
    y = g.relu(g.norm(g.conv(y, inner, 3)))
    g.relu(g.map("add", g.norm(g.conv(y, c, 1)), x))
    return g.text()


def stem(n: int, c: int, size: int, outputs: int, window: int, stride: int) -> str:
    g = Graph()
    g.pool(g.relu(g.norm(g.conv(g.input(n, c, size, size), outputs, window, stride))))
    return g.text()


def down(n: int, size: int) -> str:
    """A block whose residual is a convolution as well, a stride, and sums over places."""
    g = Graph()
    x = g.relu(g.conv(g.input(n, 48, size, size), 96, 3))
    y = g.norm(g.conv(g.relu(g.norm(g.conv(x, 32, 3, 2))), 160, 1))
    g.mean(g.relu(g.map("add", y, g.norm(g.conv(x, 160, 1, 2, 0)))))
    return g.text()


def up(size: int) -> str:
    """Enlarged, joined with another image, and squashed by a function that no eviction does."""
    g = Graph()
    x, skip = g.input(1, 64, size, size), g.input(1, 32, 2 * size, 2 * size)
    y = g.conv(x, 32, 2, 1, 1, 2)
    y = g.map("add", y, g.channels(g.input(32), y))
    z = g.conv(g.join(skip, y), 32, 3)
    g.conv(g.map("multiply", z, g.map("logistic", z)), 40, 3, 2)
    return g.text()


def joined(size: int) -> str:
    """Two images side by side on partitions; another one twice, a row further, with a stride."""
    g = Graph()
    z = g.relu(g.conv(g.join(g.input(1, 40, size, size), g.input(1, 24, size, size)), 48, 3))
    g.map("add", z, g.conv(g.input(1, 32, 2 * size, 2 * size), 48, 3, 2))
    return g.text()


MODULES = {
    "joined": joined(11), "double": stem(2, 64, 9, 40, 3, 1), "double with a stride": stem(1, 32, 13, 20, 5, 2),
    "bottleneck": bottleneck(1, 160, 40, 8), "bottleneck of three": bottleneck(3, 136, 32, 5),
    "stem": stem(1, 3, 32, 24, 7, 2), "stem of two": stem(2, 3, 30, 40, 3, 1), "wide stem": stem(1, 1, 20, 16, 5, 1),
    "down": down(2, 12), "odd down": down(1, 15), "up": up(9), "strips": stem(1, 16, 80, 136, 3, 1),
}


@pytest.mark.parametrize("cast", list(TOLERANCES))
@pytest.mark.parametrize("name", list(MODULES))
def test_image_program(name: str, cast: str) -> None:
    assert check_images(MODULES[name], cast)


def test_a_result_is_not_written_over_what_its_product_reads_beside_others(tmp_path: Path) -> None:
    """The two images that are joined have the shape of the result, which may take over a value that is only added to it."""
    text = """HloModule m
ENTRY main {
  s = f32[1,32,32,8] parameter(0)
  r = f32[3,3,8,16] parameter(1)
  k = f32[3,3,32,16] parameter(2)
  a = f32[1,32,32,16] parameter(3)
  first = f32[1,32,32,16] convolution(s, r), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
  both = f32[1,32,32,32] concatenate(first, a), dimensions={3}
  ROOT second = f32[1,32,32,16] convolution(both, k), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f
}"""
    build = compile_module(read_text(text), options_from(auto_cast="none"))
    assert build.package is not None
    write_neff(str(tmp_path / "m.neff"), build.package)
    module = read_text(text)
    inputs = random_inputs(module)
    (got,), (want,) = load(str(tmp_path / "m.neff")).run(inputs), flatten(evaluate(module, inputs))
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_a_convolution_without_spatial_dimensions_is_no_image() -> None:
    check_text("""HloModule flat
ENTRY main {
  x = f32[6,8] parameter(0)
  w = f32[8,5] parameter(1)
  c = f32[6,5] convolution(x, w), dim_labels=bf_io->bf
  ROOT t = f32[6,5] tanh(c)
}
""", tolerance=1e-5, optlevel=2)


def test_windows_of_many_images_fill_the_partitions() -> None:
    """Channels of four images lie beside each other where nothing tells channels apart."""
    check_whole("""HloModule m
larger { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] maximum(a, b) }
ENTRY main {
  x = f32[4,3,12,12] parameter(0)
  w = f32[3,3,3,32] parameter(1)
  c = f32[4,32,12,12] convolution(x, w), window={size=3x3 pad=1_1x1_1}, dim_labels=bf01_i01o->bf01
  low = f32[] constant(-inf)
  p = f32[4,32,6,6] reduce-window(c, low), window={size=1x1x3x3 stride=1x1x2x2 pad=0_0x0_0x1_1x1_1}, to_apply=larger
  r = f32[4,32,6,6] maximum(p, c0)
  ROOT t = (f32[4,32,12,12], f32[4,32,6,6]) tuple(c, r)
}
""".replace("maximum(p, c0)", "tanh(p)"), strict=True)


def test_a_sum_over_places_of_large_images_has_no_strips() -> None:
    check_whole("""HloModule m
sum { a = f32[] parameter(0)
  b = f32[] parameter(1)
  ROOT c = f32[] add(a, b) }
ENTRY main {
  x = f32[1,32,60,60] parameter(0)
  w = f32[32,32,1,1] parameter(1)
  c = f32[1,32,60,60] convolution(x, w), window={size=1x1}, dim_labels=bf01_oi01->bf01
  t = f32[1,32,60,60] tanh(c)
  zero = f32[] constant(0)
  m = f32[1,32] reduce(t, zero), dimensions={2,3}, to_apply=sum
  e = f32[1,32] exponential(m)
  ROOT r = (f32[1,32,60,60], f32[1,32]) tuple(t, e)
}
""", levels=("2",))


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_norms_of_narrow_floats_cost_no_more_than_their_eviction(dtype: str) -> None:
    """Factors and offsets by channel are taken along while sums leave PSUM, whatever the type between the steps is."""
    wide = bottleneck(2, 128, 64, 14)
    narrow = wide.replace("f32", dtype)
    check_whole(narrow, levels=("2",), strict=True)
    assert microseconds(narrow, "none") < 0.8 * microseconds(wide, "matmult")


def blocks(count: int) -> str:
    g = Graph()
    x = g.input(3, 128, 10, 10)
    for _ in range(count):
        y = g.relu(g.norm(g.conv(x, 64, 1)))
        y = g.relu(g.norm(g.conv(y, 64, 3)))
        x = g.relu(g.map("add", g.norm(g.conv(y, 128, 1)), x))
    return g.text()


def test_blocks_are_one_region_where_streams_are_straight() -> None:
    """What blocks hand on stays on the chip; elsewhere equal blocks are equal regions, in a pipeline stages of their own."""
    text = blocks(3).replace("f32", "bf16")

    def regions(target: str, cores: int = 1) -> int:
        options = options_from(optlevel=2, target=target, neuroncore_pipeline_cores=cores)
        module = read_text(text)
        run_pipeline(module, pass_settings(options, load_target(target)))
        return len(images_in(module))

    assert (regions("v1"), regions("v1", cores=2), regions("v2")) == (1, 3, 3)
    check_whole(text, levels=("2",), target="v1", strict=True)


def acted_before(count: int, c: int, inner: int, size: int) -> str:
    """Blocks whose norms come before their products, with images that live long beside ones that do not."""
    g = Graph()
    x = g.conv(g.input(1, 48, size, size), c, 1)
    for _ in range(count):
        y = g.relu(g.norm(g.conv(g.relu(g.norm(x)), inner, 1)))
        y = g.relu(g.norm(g.conv(y, inner, 3)))
        x = g.map("add", x, g.conv(y, c, 1))
    g.relu(g.norm(x))
    return g.text()


@pytest.mark.parametrize("case", [(2, 256, 32, 8), (3, 512, 32, 4)], ids=str)
def test_a_value_is_written_over_another_only_element_for_element(case: tuple[int, int, int, int],
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    """Begun elsewhere in what the other has, it could destroy what is still to be added."""
    placed_by, shared = Program.arena, 0

    def arena(self: Program, sizes: Mapping[Instruction, int]) -> tuple[dict[Instruction, int], int]:
        nonlocal shared
        places, total = placed_by(self, sizes)
        for a, b in combinations(places, 2):
            if self._meet(a, b) and places[a] < places[b] + sizes[b] and places[b] < places[a] + sizes[a]:
                assert places[a] == places[b]
                shared += 1
        return places, total

    monkeypatch.setattr(Program, "arena", arena)
    check_whole(acted_before(*case).replace("f32", "bf16"), target="v1", levels=("2",))
    assert shared
