"""The clock against kernels whose schedule and time on a chip are published (hardware model 5.3 and its sources).

Rows of grade A, and the further points of a published trace, are held to 15 %. What does not fit says why where it is declared.
- silu cannot pass 864 us at the documented 272 GB/s; the chip once showed 797.7 us, that is 294 GB/s.
- rope is bound by Vector; the chip kept it busy for 84 % of the time.
- Scans of many channels come out 9 to 12 % too fast: Vector on the chip takes about 45 cycles more for each operation of 512
  columns there, and does not in scan_4096, which is exactly ten cycles an element.
- gqa and bmm_softmax of NKIBench make all scores of a head before they use the first; that 1.1 and 0.73 GB of them went to
  memory and back is taken from their profiles. Scalar was busy longer on the chip than its work explains (7.4 and 5.2 ms for
  4.7 and 3.2), in kernels where exponentials and copies alternate, as in the selective scan; why is not known.

How a PE pass costs away from 512 columns (hardware model, question 1): two kernels have half of their passes at 128 columns
and PE as their busiest engine, matmul_add_rmsnorm and gqa. 8/7 of the columns (146 cycles) gives 0.95 and 0.90 of their times,
the columns plus 84 cycles (212) 1.03 and 1.07; both would be met by about 185 cycles. But gqa moves by 6 % with the number of
copies that bring turned squares out of PSUM, and the other one waits for such copies too: what a pass costs and what a wait
costs cannot be told apart in them, and all others of grade A stay within 15 % under either law. The first is taken, because
published profiles of BERT training on trn1 name the cause (PE throttled to 87.5 %), and because passes of 1 and of 128 columns
are documented at 64 and 128 cycles, where the second law would say 148 and 212. The second is the slow end of an estimate's
range.
"""

import pytest
from calibration import matmuls, nkibench, scans, softmaxes
from calibration.published import KERNELS
from calibration.writing import V2, microseconds, timed

from nxcc.backends.isa.program import Engine
from nxcc.compiler.reports.sensitivity import with_facts

HELD = [row for row in KERNELS if row.grade in ("A", "T")]


@pytest.mark.parametrize("row", HELD, ids=lambda row: row.name)
def test_published_time_within_fifteen_percent(row):
    assert row.clocked_us() == pytest.approx(row.us, rel=0.15)


@pytest.mark.parametrize("row", [row for row in KERNELS if row.grade == "U"], ids=lambda row: row.name)
def test_a_threshold_of_the_vendor_is_hardly_passed(row):
    assert row.us * 0.5 < row.clocked_us() < row.us * 1.05


def test_variants_of_the_matrix_product_keep_their_order():
    tutorial = [microseconds(timed(kernel)) for kernel in (
        matmuls.tiled, matmuls.hoisted, matmuls.blocked, matmuls.blocked_in_all)]
    assert tutorial == sorted(tutorial, reverse=True)
    search = [microseconds(timed(kernel, 8)) for kernel in (
        matmuls.tiled, matmuls.search_two_by_two, matmuls.search_four_by_two, matmuls.search_wide_both)]
    assert search == sorted(search, reverse=True)


def test_variants_of_the_scan_keep_their_order():
    # Published: 2340 and 1610 us for 4096 channels; 3300 us for twice the steps.
    first, reordered, *longer = (microseconds(timed(kernel, 2)) for kernel in (
        scans.scan_4096, scans.scan_4096_reordered, scans.scan_of_1024, scans.scan_of_2048, scans.scan_of_4096))
    assert reordered < first < longer[0] < longer[1] < longer[2]


def test_both_laws_of_a_pass_fit_the_kernels_that_turn_squares():
    other = with_facts(V2, {"tensor.pass_factor": 1.0, "tensor.pass_overhead_cycles": 84})
    for kernel, us in ((nkibench.rmsnorm_matmul, 999.7), (nkibench.matmul_add_rmsnorm, 2666.6), (nkibench.swiglu, 4221.8),
                       (softmaxes.gqa, 19110.5)):
        for target in (V2, other):
            assert microseconds(timed(kernel, 4, target)) == pytest.approx(us, rel=0.10)


def test_scores_that_the_chip_cannot_hold_cost_what_the_profiles_counted():
    """Bytes of HBM: 1.20 + 1.13 GB of gqa; 2.62 GB of bmm_softmax, of which two of eight pieces stay here."""
    assert timed(softmaxes.gqa, 4).hbm_bytes == pytest.approx(2.33e9, rel=0.05)
    assert timed(softmaxes.bmm_softmax, 4).hbm_bytes == pytest.approx(2.62e9, rel=0.05)


def test_work_is_what_the_kernel_computes():
    timing = timed(nkibench.rope)
    # Six operations of two tensors on all columns, 1.12 GHz: 2809 us; active on the chip for 2796 us.
    assert V2.nanoseconds(timing.busy[Engine.VECTOR]) / 1e3 == pytest.approx(2809, rel=0.01)
    assert timing.hbm_bytes == 4 * (128 + 64 + 64 + 128) * 262144
