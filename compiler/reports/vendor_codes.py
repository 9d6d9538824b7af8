"""The vendor's diagnostic codes that people search for: what each means, and which of ours says the same.

Source: CLI and NEFF reference, section 2.3 (documented error pages of neuronx-cc).
"""

from __future__ import annotations

from nxcc.ir.facts import dataclass


@dataclass(frozen=True)
class VendorCode:
    """meaning: the condition; ours: our code for it, or empty; advice: what nxcc does or what to do."""

    meaning: str
    ours: str
    advice: str


_MEMORY = VendorCode("tensors exceed device memory", "NXC0302",
                     "smaller batch, a narrower type (--auto-cast all), or shard the model; `nxcc check` lists the memory")
_COUNT = VendorCode("too many machine instructions", "", "loops stay loops here, so there is no such limit")
_REDUCE_WINDOW = VendorCode("reduce-window with dilation or several inputs", "NXC0300", "runs on the host if the device cannot")
_INTEGER = VendorCode("integer operation computed in f32", "", "integer arithmetic is exact here")
_MX = VendorCode("malformed or unsupported MX quantisation call", "NXC0303", "MX calls are refused on v1 and v2")

VENDOR_CODES: dict[str, VendorCode] = {
    "EARG001": VendorCode("logical-core setting not possible on the target", "NXC0001", "drop --lnc: v1 and v2 have one"),
    "EBVF030": _COUNT, "EVRF007": _COUNT, "EXTP004": _COUNT,
    "EHCA005": VendorCode("custom-call target unknown", "NXC0303", "replace the call by HLO operators"),
    "EVRF015": VendorCode("custom-call target unknown", "NXC0303", "replace the call by HLO operators"),
    "EMOD025": VendorCode("a shape has a dynamic dimension", "NXC0301", "export with static shapes; bucket and pad"),
    "EOOM001": _MEMORY, "EOOM002": _MEMORY, "EXSP001": _MEMORY, "EVRF009": _MEMORY,
    "ESFH002": VendorCode("64-bit constant does not fit 32 bits", "NXC0300", "use 32-bit types, or let it run on the host"),
    "ESPP004": VendorCode("data type without code generation", "NXC0300", "use another type, or let it run on the host"),
    "ESPP047": VendorCode("unsupported 8-bit float", "NXC0300", "cast to f16 or bf16"),
    "EUOC002": VendorCode("operator unsupported", "NXC0300", "`nxcc check` names the instruction; it may run on the host"),
    "EVRF001": VendorCode("operator unsupported", "NXC0300", "`nxcc check` names the instruction; it may run on the host"),
    "EVRF004": VendorCode("complex type", "NXC0300", "complex values run on the host"),
    "EVRF005": VendorCode("f8 type of the fnuz family", "NXC0300", "cast, or let it run on the host"),
    "EVRF006": VendorCode("random algorithm", "NXC0300", "Philox and ThreeFry are supported"),
    "EVRF010": VendorCode("convolution with input and kernel dilation", "NXC0300", "runs here, or on the host"),
    "EVRF011": VendorCode("strided convolution with input dilation", "NXC0300", "runs here, or on the host"),
    "EVRF013": VendorCode("TopK on integers", "NXC0300", "runs on the host if the device cannot"),
    "EVRF016": VendorCode("scatter with reduction on integers", "NXC0300", "runs on the host if the device cannot"),
    "EVRF017": _REDUCE_WINDOW, "EVRF018": _REDUCE_WINDOW, "EVRF019": _REDUCE_WINDOW,
    "EVRF022": VendorCode("arithmetic right shift of a narrow type", "NXC0300", "widened exactly here"),
    "EVRF029": VendorCode("sort not supported", "NXC0300", "runs on the host if the device cannot"),
    "EVRF031": VendorCode("scatter indices beyond the operand", "NXC0106", "shrink the iota"),
    "EVRF035": _INTEGER, "EVRF060": _INTEGER, "EVRF061": _INTEGER, "EVRF062": _INTEGER, "EVRF063": _INTEGER,
    **{f"EVRF0{n}": _MX for n in (*range(36, 43), *range(43, 51), *range(53, 56), 57, 58)},
    "EVRF051": VendorCode("f8e4m3fn without the conversion flag", "NXC0300", "runs on the host if the device cannot"),
    "EVRF056": VendorCode("gather indices beyond the operand", "NXC0106", "fix the model's sizes"),
    "EVRF059": VendorCode("native kernel file not found", "NXC0303", "native kernels cannot be compiled here"),
    "EVRF064": VendorCode("illegal HLO instruction", "NXC0106", "the message names the instruction and the rule"),
    "F137": VendorCode("killed, out of host memory", "NXC0302", "weights stay mapped here and are not copied"),
    "NLA001": VendorCode("unhandled exception", "NXC0009", "an error inside the vendor's compiler"),
    "TEN404": VendorCode("internal tensorizer error", "NXC0009", "an error inside the vendor's compiler"),
    "XTP002": _COUNT, "LUR015": _COUNT,
}
