"""Spectra of sound, and what speech models take of them: products with tables that follow from sizes and rates.

Source: TensorFlow's kernels (spectrogram.cc, mfcc_mel_filterbank.cc, mfcc_dct.cc, mfcc.cc).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from nxcc.ir.dtypes import F32
from nxcc.ir.graphdef.call import Call
from nxcc.ir.graphdef.emitter import Emitter
from nxcc.ir.graphdef.registry import rule
from nxcc.ir.graphdef.values import Value
from nxcc.ir.hlo.module import Instruction
from nxcc.ir.literals import Array

FLOOR = 1e-12
"""The least energy of a band, before the logarithm."""


@rule("AudioSpectrogram", needs=("dot",), ranks=(2,))
def spectrogram(call: Call) -> Value:
    """[channels, frames, bins]: the size of each frame's spectrum under a periodic Hann window."""
    e, (samples, channels) = call.emit, call.x(0).shape.dims
    width, stride = call.attr("window_size"), call.attr("stride")
    call.need(width > 1 and stride > 0, f"a window of {width} samples every {stride} is none")
    frames = max((samples - width) // stride + 1, 0)
    bins = (1 << (width - 1).bit_length()) // 2 + 1
    call.table(width * bins + frames * width)
    if not frames:
        return e.full(F32, (channels, 0, bins), 0)
    places = np.arange(frames, dtype=np.int32)[:, None] * stride + np.arange(width, dtype=np.int32)
    parts = e.take(e.transpose(call.x(0), (1, 0)), e.constant(places), 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(width) / width)
    angles = 2 * np.pi * (np.outer(np.arange(width), np.arange(bins)) % (2 * (bins - 1))) / (2 * (bins - 1))
    sides = [_times(e, parts, window[:, None] * wave(angles)) for wave in (np.cos, np.sin)]
    power = e.add(*(e.multiply(side, side) for side in sides))
    return power if call.attr("magnitude_squared") else e.make("sqrt", power)


def _times(e: Emitter, x: Instruction, table: Array) -> Instruction:
    """[..., n] by a table [n, m]."""
    return e.builder.dot(x, e.constant(table.astype(np.float32)), ((x.shape.rank - 1,), (0,)))


def _mel(frequency: Any) -> Any:
    return 1127.0 * np.log1p(frequency / 700.0)


def _bands(bins: int, rate: float, channels: int, lowest: float, highest: float) -> Array:
    """[bins, channels]: triangles that are even in mel; each bin counts for the two bands that it lies between."""
    low, high = _mel(lowest), _mel(highest)
    edges = low + (high - low) / (channels + 1) * np.arange(channels + 2)
    step = 0.5 * rate / (bins - 1)
    places = np.arange(bins)
    mel = _mel(places * step)
    inside = (places >= int(1.5 + lowest / step)) & (places <= int(highest / step))
    # the last centre below each bin: 0 for the lower limit
    band = np.clip(np.searchsorted(edges[1:], mel, side="left"), 0, channels)
    share = np.where(inside, (edges[band + 1] - mel) / (edges[band + 1] - edges[band]), 0)
    found = np.zeros((bins, channels + 2))
    found[places, band] += share
    found[places, band + 1] += np.where(inside, 1 - share, 0)
    return found[:, 1:channels + 1]


@rule("Mfcc", needs=("dot",), ranks=(3, 0))
def mfcc(call: Call) -> Value:
    """[channels, frames, coefficients] of a spectrogram of squared sizes."""
    e, x, rate = call.emit, call.x(0), float(call.number(1))
    lowest, highest = call.attr("lower_frequency_limit"), call.attr("upper_frequency_limit")
    channels, count = call.attr("filterbank_channel_count"), call.attr("dct_coefficient_count")
    bins = x.shape.dims[2]
    call.need(bins > 1 and rate > 0 and channels > 0 and 0 < count <= channels and 0 <= lowest < highest,
              f"{count} coefficients of {channels} bands from {lowest} to {highest} Hz at {rate} Hz of {bins} bins")
    call.table(bins * (channels + 2) + channels * count)
    energy = _times(e, e.make("sqrt", x), _bands(bins, rate, channels, lowest, highest))
    logs = e.make("log", e.maximum(energy, e.like(energy, FLOOR)))
    waves = np.cos(np.pi / channels * np.outer(np.arange(channels) + 0.5, np.arange(count)))
    return _times(e, logs, np.sqrt(2 / channels) * waves)
