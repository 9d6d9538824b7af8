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
     "dtype": "bf16"}, {"images": 2, "size": 11, "channels": 8, "outputs": 8, "groups": 8, "stride": 2}], ids=str)
def test_gradient_of_a_kernel(layout: str, options: dict[str, int]) -> None:
    """Once as large modules have it, with zeros between the rows, and once with each shift cut out."""
    text = gradient(layout=layout, **options)  # type: ignore[arg-type]
    check_whole(text, levels=("0", "2"), strict=layout == "channels last")
    check_whole(text, levels=("2",), relayout="exact")


def test_time_of_a_gradient() -> None:
    """0.8 M elements of images and of gradient; a step for each element of the window took a second."""
    assert microseconds(gradient(8, 28, 128, 128)) < 1500
    assert microseconds(gradient(8, 28, 128, 128, layout="channels first")) < 4000
