"""Which schedule stands for which published time: what the clock is measured by and compiled modules are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from calibration import attention, matmuls, nkibench, scans, softmaxes
from calibration.writing import V2, microseconds, timed

from nxcc.backends.tile.builder import Kernel


@dataclass(frozen=True)
class Published:
    """A kernel's schedule and its measured time, microseconds.

    module: the module of the timing files that computes the same, if any. grade: as in those files; T for further points of a
    published trace, U for a threshold of the vendor's tests, an upper bound that includes the execution's fixed time. queues:
    see calibration.writing. why: what is known of a difference above 15 %.
    """

    write: Callable[[Kernel], None]
    us: float
    grade: str
    module: str = ""
    queues: int = 1
    why: str = ""

    @property
    def name(self) -> str:
        return self.write.__name__

    def clocked_us(self) -> float:
        """The simulator's time."""
        fixed = V2.host.execution_fixed_ns / 1e3 if self.grade == "U" else 0.0
        return microseconds(timed(self.write, self.queues)) + fixed


PRODUCT = "matmul_bf16_4096x8192x8192"

KERNELS = (
    Published(matmuls.tiled, 51800, "B", queues=1, why="all loads in one queue would take 76.7 ms, in two half of that"),
    Published(matmuls.hoisted, 42960, "B"),
    Published(matmuls.blocked, 22070, "B", why="each block is loaded, then used: 17.7 ms; what takes 4 ms more is not known"),
    Published(matmuls.blocked_in_all, 6970, "A", PRODUCT),
    Published(matmuls.tiled, 20990, "B", queues=8),
    Published(matmuls.search_two_by_two, 11800, "T", queues=8),
    Published(matmuls.search_four_by_two, 8070, "T", queues=8),
    Published(matmuls.search_wide_right, 7620, "T", queues=8),
    Published(matmuls.search_wide_both, 6960, "B", queues=8),
    Published(matmuls.transpose_matmul, 9355.9, "A", "nkib_transpose_matmul"),
    Published(scans.scan_256, 172.93, "A", "mamba_s512_c256_st16"),
    Published(scans.scan_4096, 2340, "B"),
    Published(scans.scan_4096_reordered, 1610, "A", "mamba_s512_c4096_st16", 2),
    Published(scans.scan_of_1024, 3300, "A", "mamba_s1024_c4096_st16", 2),
    Published(scans.scan_of_2048, 6600, "A", "mamba_s2048_c4096_st16", 2),
    Published(scans.scan_of_4096, 13300, "A", "mamba_s4096_c4096_st16", 2),
    Published(scans.scan_of_5120, 17300, "A", "mamba_s5120_c4096_st16", 2),
    Published(scans.scan_of_7168, 24200, "A", "mamba_s7168_c4096_st16", 2),
    Published(scans.scan_of_8192, 27800, "A", "mamba_s8192_c4096_st16", 2),
    Published(scans.nkib_mamba, 2277.5, "A", "nkib_mamba", 2),
    Published(scans.depthwise, 461, "A", "conv1d_dw_n8_c512_w2048_k3", 2),
    Published(attention.attention_128, 293, "B", "attn_s4096_d128_bf16", 2,
              "Vector and Scalar take turns at PSUM and wait 64 us; the order of their work on the chip was better"),
    Published(attention.attention_64, 384, "A", "attn_s4096_d64_fp32", 2),
    Published(attention.rmsnorm_qkv_small, 25, "U", "rmsnorm_qkv_128x512x512", 2),
    Published(attention.rmsnorm_qkv, 40, "U", "rmsnorm_qkv_512x1024x384", 2),
    Published(nkibench.silu, 797.7, "A", "nkib_silu", 2),
    Published(nkibench.rope, 3332.6, "A", "nkib_rope"),
    Published(nkibench.adamw, 1888, "A", "nkib_adamw", 8),
    Published(nkibench.bmm, 4333.2, "A", "nkib_bmm", 4),
    Published(nkibench.matmul, 35199.7, "A", "nkib_matmul", 8),
    Published(nkibench.rmsnorm_matmul, 999.7, "A", "nkib_rmsnorm_matmul", 4),
    Published(nkibench.add_rmsnorm_matmul, 1054.8, "A", "nkib_add_rmsnorm_matmul", 4),
    Published(nkibench.matmul_add_rmsnorm, 2666.6, "A", "nkib_matmul_add_rmsnorm", 4),
    Published(nkibench.lora, 30166.4, "A", "nkib_lora", 8),
    Published(nkibench.swiglu, 4221.8, "A", "nkib_swiglu", 4),
    Published(softmaxes.bmm_softmax, 11999.6, "A", "nkib_bmm_softmax", 4),
    Published(softmaxes.gqa, 19110.5, "A", "nkib_gqa", 4),
)
