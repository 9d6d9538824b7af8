"""Special functions, factorisations and drawings that no device lowering has: by scipy and numpy in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nxcc.ir.hlo.programs.registry import Attributes, function
from nxcc.ir.literals import Array


def _special() -> Any:
    from scipy import special  # type: ignore[import-untyped]
    return special


def _polygamma(order: Array, x: Array) -> Array:
    """Of whole orders that are not negative; NaN for others."""
    fits = (order >= 0) & (order == np.floor(order))
    found = _special().polygamma(np.where(fits, order, 0).astype(np.int64), x)
    return np.where(fits, found, np.nan)


SPECIAL: dict[str, Callable[..., Any]] = {
    "Igamma": lambda a, x: _special().gammainc(a, x), "Igammac": lambda a, x: _special().gammaincc(a, x),
    "Betainc": lambda a, b, x: _special().betainc(a, b, x), "Zeta": lambda x, q: _special().zeta(x, q),
    "Polygamma": _polygamma, "Ndtri": lambda x: _special().ndtri(x), "Expint": lambda x: _special().expi(x),
    "Dawsn": lambda x: _special().dawsn(x), "Spence": lambda x: _special().spence(x),
    "FresnelSin": lambda x: _special().fresnel(x)[0], "FresnelCos": lambda x: _special().fresnel(x)[1],
    "BesselJ0": lambda x: _special().j0(x), "BesselJ1": lambda x: _special().j1(x), "BesselY0": lambda x: _special().y0(x),
    "BesselY1": lambda x: _special().y1(x), "BesselK0": lambda x: _special().k0(x), "BesselK1": lambda x: _special().k1(x),
    "BesselK0e": lambda x: _special().k0e(x), "BesselK1e": lambda x: _special().k1e(x)}
"""Element by element, by the names of their operators."""


def _wide(x: Array) -> Array:
    return x.astype(np.complex128 if x.dtype.kind == "c" else np.float64)


for _name, _compute in SPECIAL.items():
    function(_name, on_host=True)(
        lambda attributes, *values, compute=_compute: np.asarray(compute(*map(_wide, values))).astype(values[0].dtype))


@function("NextAfter", on_host=True)
def next_after(attributes: Attributes, x: Array, y: Array) -> Array:
    return np.nextafter(x, y)


# Matrices


@function("SelfAdjointEigV2", on_host=True)
def self_adjoint_eigen(attributes: Attributes, x: Array) -> Sequence[Array]:
    """Of the lower triangle; values in rising order, vectors in columns."""
    values, vectors = np.linalg.eigh(_wide(x))
    return [values.astype(x.dtype), vectors.astype(x.dtype) if attributes["compute_v"] else np.empty(0, x.dtype)]


@function("Svd", on_host=True)
def singular_values(attributes: Attributes, x: Array) -> Sequence[Array]:
    """x = u diag(s) v^H, both with vectors in columns."""
    if not attributes["compute_uv"]:
        s = np.linalg.svd(_wide(x), compute_uv=False)
        return [s.astype(x.dtype), np.empty(0, x.dtype), np.empty(0, x.dtype)]
    u, s, v = np.linalg.svd(_wide(x), full_matrices=attributes["full_matrices"])
    return [part.astype(x.dtype) for part in (s, u, v.conj().swapaxes(-1, -2))]


@function("Lu", on_host=True)
def lu(attributes: Attributes, x: Array) -> Sequence[Array]:
    """Both factors in one matrix, and which row stands where."""
    from scipy.linalg import lu_factor  # type: ignore[import-untyped]
    packed = np.empty(x.shape, x.dtype)
    order = np.empty(x.shape[:-1], attributes["output_idx_type"])
    for place in np.ndindex(x.shape[:-2]):
        packed[place], swaps = lu_factor(x[place])
        rows = list(range(x.shape[-1]))
        for k, other in enumerate(swaps.tolist()):
            rows[k], rows[other] = rows[other], rows[k]
        order[place] = rows
    return [packed, order]


def _by_matrix(name: str, x: Array) -> Array:
    from scipy import linalg
    found = np.empty(x.shape, np.complex128)
    for place in np.ndindex(x.shape[:-2]):
        found[place] = getattr(linalg, name)(_wide(x[place]))
    return (found if x.dtype.kind == "c" else found.real).astype(x.dtype)


MATRIX_FUNCTIONS = {"MatrixSquareRoot": "sqrtm", "MatrixExponential": "expm", "MatrixLogarithm": "logm"}

for _name, _routine in MATRIX_FUNCTIONS.items():
    function(_name, on_host=True)(lambda attributes, x, routine=_routine: _by_matrix(routine, x))


@function("TridiagonalSolve", on_host=True)
def tridiagonal_solve(attributes: Attributes, diagonals: Array, b: Array) -> Array:
    """The last of the diagonal above and the first of the one below have no place in the matrix."""
    above, main, below = (_wide(diagonals[..., k, :]) for k in range(3))
    n = main.shape[-1]
    matrix = np.zeros((*main.shape, n), main.dtype)
    rows = np.arange(n)
    matrix[..., rows, rows] = main
    matrix[..., rows[:-1], rows[1:]] = above[..., :-1]
    matrix[..., rows[1:], rows[:-1]] = below[..., 1:]
    try:
        return np.linalg.solve(matrix, _wide(b)).astype(b.dtype)
    except np.linalg.LinAlgError as error:
        raise ValueError(str(error)) from None


@function("TridiagonalMatMul", on_host=True)
def tridiagonal_product(attributes: Attributes, above: Array, main: Array, below: Array, b: Array) -> Array:
    a, m, c = (diagonal.swapaxes(-1, -2) for diagonal in (above, main, below))
    found = m * b
    found[..., :-1, :] += a[..., :-1, :] * b[..., 1:, :]
    found[..., 1:, :] += c[..., 1:, :] * b[..., :-1, :]
    return np.asarray(found)


# Images


@function("HistogramFixedWidth", on_host=True)
def histogram(attributes: Attributes, values: Array, limits: Array, count: Array) -> Array:
    """What lies outside the range goes to the first and the last bin."""
    n, (low, high) = int(count), (float(limit) for limit in limits)
    if n < 1 or not low < high or n > 1 << 24:
        raise ValueError(f"{n} bins from {low} to {high}")
    places = np.clip(np.floor((values.astype(np.float64) - low) / (high - low) * n), 0, n - 1).astype(np.int64)
    return np.bincount(places.reshape(-1), minlength=n).astype(attributes["dtype"])


_COLORS = ((1, 1, 0, 1), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 0, 1), (0.5, 0, 0.5, 1), (0.5, 0.5, 0, 1), (0.5, 0, 0, 1),
           (0, 0, 0.5, 1), (0, 1, 1, 1), (1, 0, 1, 1))
"""Source: TensorFlow's default table of colours, RGBA."""


@function("DrawBoundingBoxes", "DrawBoundingBoxesV2", on_host=True)
def draw_boxes(attributes: Attributes, images: Array, boxes: Array, *colors: Array) -> Array:
    """The outlines of boxes [y1, x1, y2, x2] in shares of the image, one pixel wide; what lies outside is left out."""
    found = images.copy()
    depth = images.shape[-1]
    table = colors[0] if colors and colors[0].size else np.array(_COLORS, np.float64)
    if depth == 1 and not (colors and colors[0].size):
        table = np.ones((len(_COLORS), 4))
    for image, rows in zip(found, boxes, strict=True):
        for number, box in enumerate(rows):
            _draw(image, box, table[number % len(table)][:depth].astype(images.dtype))
    return found


def _draw(image: Array, box: Array, color: Array) -> None:
    height, width = image.shape[:2]
    top, left, bottom, right = (int(float(v) * (n - 1)) for v, n in zip(box, (height, width, height, width), strict=True))
    if top > bottom or left > right or top >= height or bottom < 0 or left >= width or right < 0:
        return
    rows, columns = slice(max(top, 0), min(bottom, height - 1) + 1), slice(max(left, 0), min(right, width - 1) + 1)
    for row in (top, bottom):
        if 0 <= row < height:
            image[row, columns] = color
    for column in (left, right):
        if 0 <= column < width:
            image[rows, column] = color
