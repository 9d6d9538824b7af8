"""Gradients of kernels: convolutions whose window is larger than their result, as products of shifted rows."""

from __future__ import annotations

import pytest

from harness.clocked import microseconds
from harness.whole import check_whole

LAYOUTS = {"channels last": ("f01b_i01o->01bf", "{n},{h},{w},{c}", "{n},{oh},{ow},{o}", "{kh},{kw},{b},{f}"),
           "channels first": ("fb01_io01->bf01", "{n},{c},{h},{w}", "{n},{o},{oh},{ow}", "{b},{f},{kh},{kw}")}


def gradient(images: int, size: int, channels: int, outputs: int, *, kernel: int = 3, stride: int = 1, low: int = 1,
             layout: str = "channels last", groups: int = 1, dtype: str = "f32") -> str:
    """The gradient of a kernel [kernel, kernel, channels / groups, outputs] of a convolution with `low` zeros before images."""
    labels, *dims = LAYOUTS[layout]
    result = (size + 2 * low - kernel) // stride + 1
    high = (result - 1) * stride + kernel - size - low
    sizes = {"n": images, "h": size, "w": size, "c": channels, "oh": result, "ow": result, "o": outputs, "kh": kernel,
             "kw": kernel, "b": channels // groups, "f": outputs}
    x, g, k = (f"{dtype}[{text.format(**sizes)}]" for text in dims)
    window = f"size={result}x{result} pad={low}_{high}x{low}_{high}" + (f" rhs_dilate={stride}x{stride}" if stride > 1 else "")
    return f"""HloModule m
ENTRY main {{
  x = {x} parameter(0)
  g = {g} parameter(1)
  ROOT k = {k} convolution(x, g), window={{{window}}}, dim_labels={labels}, batch_group_count={groups}
}}
"""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [
    {"images": 2, "size": 9, "channels": 5, "outputs": 7}, {"images": 1, "size": 12, "channels": 20, "outputs": 40},
    {"images": 3, "size": 13, "channels": 3, "outputs": 6, "stride": 2}, {"images": 2, "size": 17, "channels": 4, "outputs": 5,
     "stride": 3, "kernel": 4}, {"images": 2, "size": 10, "channels": 6, "outputs": 4, "kernel": 1, "low": 0},
    {"images": 2, "size": 21, "channels": 3, "outputs": 8, "kernel": 7, "stride": 4, "low": 3},
    {"images": 2, "size": 9, "channels": 6, "outputs": 12, "groups": 6}, {"images": 2, "size": 9, "channels": 5, "outputs": 7,
     "dtype": "bf16"}, {"images": 2, "size": 11, "channels": 8, "outputs": 8, "groups": 8, "stride": 2},
    {"images": 2, "size": 9, "channels": 8, "outputs": 12, "groups": 4}, {"images": 2, "size": 12, "channels": 96,
     "outputs": 192, "groups": 2, "stride": 2}], ids=str)
def test_gradient_of_a_kernel(layout: str, options: dict[str, int]) -> None:
    """Once as large modules have it, with zeros between the rows, and once with each shift cut out."""
    text = gradient(layout=layout, **options)  # type: ignore[arg-type]
    check_whole(text, levels=("0", "2"), strict=layout == "channels last")
    check_whole(text, levels=("2",), relayout="exact")


def dilated(images: int, size: int, channels: int, outputs: int, apart: int, kernel: int = 3) -> str:
    """The gradient of a kernel whose elements are `apart`; as many zeros around images."""
    x, g, k = f"f32[{images},{size},{size},{channels}]", f"f32[{images},{size},{size},{outputs}]", \
        f"f32[{kernel},{kernel},{channels},{outputs}]"
    edge = apart * (kernel - 1) // 2
    return f"""HloModule m
ENTRY main {{
  x = {x} parameter(0)
  g = {g} parameter(1)
  ROOT k = {k} convolution(x, g), window={{size={size}x{size} stride={apart}x{apart} pad={edge}_{edge}x{edge}_{edge}}},
    dim_labels=f01b_i01o->01bf
}}
"""


def transposed(images: int, size: tuple[int, int], channels: int, outputs: int, stride: int, kernel: int = 4) -> str:
    """The gradient of the kernel of a transposed convolution, whose images are dilated."""
    wide = [stride * n for n in size]
    low = kernel - 1 - (kernel - stride + 1) // 2
    x, g = f"f32[{images},{size[0]},{size[1]},{channels}]", f"f32[{images},{wide[0]},{wide[1]},{outputs}]"
    pads = [w + kernel - 1 - ((n - 1) * stride + 1) - low for w, n in zip(wide, size, strict=True)]
    return f"""HloModule m
ENTRY main {{
  x = {x} parameter(0)
  g = {g} parameter(1)
  ROOT k = f32[{kernel},{kernel},{channels},{outputs}] convolution(x, g),
    window={{size={wide[0]}x{wide[1]} pad={low}_{pads[0]}x{low}_{pads[1]} lhs_dilate={stride}x{stride}}},
    dim_labels=f01b_i01o->01bf
}}
"""


@pytest.mark.parametrize("text", [
    dilated(2, 13, 5, 7, 2), dilated(1, 17, 40, 20, 6), transposed(2, (7, 9), 6, 5, 2), transposed(1, (8, 6), 40, 33, 3),
    transposed(2, (9, 9), 4, 8, 2, kernel=2)],
    ids=["dilated", "far apart", "transposed", "transposed by 3", "kernel as stride"])
def test_gradient_of_other_convolutions(text: str) -> None:
    check_whole(text, levels=("0", "2"), strict=True)
    check_whole(text, levels=("2",), relayout="exact")


def test_time_of_a_gradient() -> None:
    """0.8 M elements of images and of gradient; a step for each element of the window took a second."""
    assert microseconds(gradient(8, 28, 128, 128)) < 1500
    assert microseconds(gradient(8, 28, 128, 128, layout="channels first")) < 4000
    assert microseconds(gradient(4, 56, 128, 128, groups=32)) < 4000
    assert microseconds(dilated(2, 33, 256, 256, 6)) < 1000
    assert microseconds(transposed(4, (28, 28), 128, 64, 2)) < 1500
