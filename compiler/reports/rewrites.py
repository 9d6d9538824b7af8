"""What to write instead of an operator that the device does not run; read by `check --json`."""

from __future__ import annotations

from collections.abc import Mapping

REWRITES: Mapping[str, str] = {
    "gather": "multiply by a one-hot matrix where the table is small, use static slices where the indices are known, or leave "
              "the lookup on the host in front of the model",
    "scatter": "multiply by a one-hot matrix, or select by comparing with an iota",
    "sort": "use top-k with a small k, or sort outside of the model",
    "topk": "reduce with maximum k times, or pick outside of the model",
    "while": "export the model with a loop count that is known",
    "conditional": "compute both arms and select",
    "dynamic-slice": "slice at a place that is known, or multiply by a one-hot matrix",
    "dynamic-update-slice": "select by comparing an iota with the place",
    "rng-bit-generator": "pass random numbers as an input",
    "rng": "pass random numbers as an input",
    "fft": "multiply by the matrix of the transform",
    "cholesky": "factor outside of the model",
    "triangular-solve": "multiply by the inverse",
    "reduce-window": "write the window as shifted slices that are combined",
    "iota": "pass the numbers as a constant",
}
"""By opcode."""

DTYPES: Mapping[str, str] = {
    "f64": "cast to f32", "c64": "compute with real and imaginary parts",
    "c128": "compute with real and imaginary parts in f32", "s64": "cast to s32", "u64": "cast to u32",
}
"""By the dtype that a reason names."""


def rewrite(opcode: str, reason: str) -> str:
    """What would let the device run it; empty where nothing general can be said."""
    for dtype, words in DTYPES.items():
        if reason.startswith((f"{dtype}[", f"{dtype} ")):
            return words
    return REWRITES.get(opcode, "")
