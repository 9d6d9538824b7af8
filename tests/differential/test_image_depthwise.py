"""Convolutions that keep channels apart, in image programs: mobile networks' blocks and what lies at their borders."""

from __future__ import annotations

import pytest

from harness.images import TOLERANCES, Graph, check_images
from harness.whole import check_whole


def inverted(n: int, c: int, wide: int, size: int, window: int = 3, stride: int = 1) -> str:
    """Widened, each channel by itself, narrowed, and added to what it began with."""
    g = Graph()
    x = g.input(n, c, size, size)
    y = g.relu(g.norm(g.conv(x, wide, 1)))
    y = g.relu6(g.norm(g.depthwise(y, window, stride)))
    y = g.norm(g.conv(y, c, 1))
    if stride == 1:
        g.map("add", y, x)
    return g.text()


def squeezed(n: int, c: int, wide: int, size: int, window: int) -> str:
    """As EfficientNet has it: swish, and a factor for each channel before it is narrowed."""
    g = Graph()
    x = g.input(n, c, size, size)
    y = g.swish(g.norm(g.conv(x, wide, 1)))
    y = g.squeeze(g.swish(g.norm(g.depthwise(y, window))), 6)
    g.map("add", g.norm(g.conv(y, c, 1)), x)
    return g.text()


def hard(c: int, size: int) -> str:
    """The hard swish of a depthwise convolution, before a product."""
    g = Graph()
    y = g.depthwise(g.input(1, c, size, size), 3)
    sixth = g.number(1 / 6, y)
    gate = g.map("multiply", g.relu6(g.map("add", y, g.number(3, y))), sixth)
    g.conv(g.map("multiply", y, gate), 32, 1)
    return g.text()


def alone(n: int, c: int, size: int, window: int, dilate: int = 1, stride: int = 1) -> str:
    g = Graph()
    g.depthwise(g.input(n, c, size, size), window, stride, dilate)
    return g.text()


MODULES = {
    "block": inverted(1, 32, 192, 7), "block with a stride": inverted(2, 40, 96, 9, 5, 2),
    "block of three": inverted(3, 24, 144, 5), "alone": alone(1, 48, 12, 3), "dilated": alone(2, 40, 14, 3, 2),
    "large": alone(1, 32, 30, 7), "strips": alone(1, 136, 70, 3), "smaller than its window": alone(1, 33, 2, 5),
    "squeezed": squeezed(1, 24, 96, 9, 3), "squeezed images": squeezed(3, 40, 64, 7, 5), "hard swish": hard(72, 11),
    "blocks in turn": inverted(1, 32, 640, 6, 7), "several images a piece": alone(6, 64, 8, 3, 1, 2),
}


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("cast", list(TOLERANCES))
@pytest.mark.parametrize("name", list(MODULES))
def test_channels_apart(name: str, cast: str, exact: bool) -> None:
    assert check_images(MODULES[name], cast, exact)


@pytest.mark.parametrize("labels", ["b01f_01io->b01f", "bf01_01io->bf01", "b01f_oi01->bf01"])
def test_orders_of_dimensions(labels: str) -> None:
    data, rest = labels.split("_")
    kernel, result = rest.split("->")
    sizes = {"b": 2, "f": 40, "0": 8, "1": 6}

    def dims(word: str, channels: str) -> str:
        return ",".join(str({channels: 40, "i": 1}.get(letter, sizes.get(letter))) for letter in word)

    window = {"o": "40", "i": "1", "0": "3", "1": "3"}
    check_whole(f"""HloModule m
ENTRY main {{
  x = f32[{dims(data, "f")}] parameter(0)
  w = f32[{",".join(window[letter] for letter in kernel)}] parameter(1)
  c = f32[{dims(result, "f")}] convolution(x, w), window={{size=3x3 pad=1_1x1_1}}, dim_labels={labels}, feature_group_count=40
  ROOT t = f32[{dims(result, "f")}] tanh(c)
}}
""")
