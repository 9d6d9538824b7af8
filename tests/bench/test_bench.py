"""What the bench's figures rest on: costs of child processes, choice of published rows, means."""

import sys

import numpy as np
import pytest
from bench import chip, processes
from bench.decoder import SEVEN_BILLION, Decoder, decoder_text

from nxcc.ir.hlo.oracle import evaluate
from nxcc.ir.hlo.text.reader import read_text
from nxcc.ir.hlo.verifier import verify

MODULES = """module,priority,family
a,core,encoder
b,low,encoder
"""
TIMING = """row_id,module,target,metric,dtype_cast,per_core_ms,requests_per_core,grade,batch
t1,a,v2,latency_p50_ms,Matmult-BF16,1.15,1.0,A,1
t2,a,v2,throughput_per_s,Matmult-BF16,4.0,2.0,A,1
t3,a,v2,pe_utilization,bf16,4.0,,A,1
t4,a,v1,latency_p50_ms,bf16,4.0,1.0,A,1
t5,b,v2,latency_p50_ms,bf16,4.0,1.0,A,1
t6,a,v2,kernel_us,bf16,0.5,,B,1
"""


@pytest.fixture
def rows(tmp_path):
    (tmp_path / "modules.csv").write_text(MODULES)
    (tmp_path / "timing.csv").write_text(TIMING)
    return chip.rows(tmp_path)


def test_rows_of_core_modules_on_the_target_without_the_host_call(rows):
    assert [(row.row_id, row.cast, pytest.approx(row.device_ms)) for row in rows] == [
        ("t1", "matmult", 1.0), ("t2", "matmult", 4.0), ("t6", "none", 0.5)]


def test_rows_without_a_line_say_why(rows, tmp_path):
    share = {"a share of the tensor engine, beside a row with the time": ["t3"]}
    for has_graph, why in ((lambda name: True, "priority low: see --priority"),
                           (lambda name: name == "a", "the corpus has no graph of it")):
        assert chip.left_out(tmp_path, "v2", ("core",), has_graph) == share | {why: ["t5"]}


def test_table_has_a_line_a_grade_and_the_mean_of_a_rows(rows):
    timed = {"device_us": 1000.0, "range_us": [900.0, 1200.0], "roofline_us": 500.0, "host_us": 60.0, "bound_by": "DMA",
             "assumed_branches": 0}
    lines, families = chip.table(rows, {("a", "matmult"): timed, ("a", "none"): {"failure": "no"}})
    assert [(line["grade"], line["rows"], line.get("failure")) for line in lines] == [("A", 2, None), ("B", 1, "no")]
    # The geometric mean of 1 and 4 ms is 2 ms.
    assert (lines[0]["ratio"], lines[0]["of_roofline"]) == (pytest.approx(0.5), pytest.approx(2.0))
    half = pytest.approx(0.5)
    figures = {"modules": 1, "mean": half, "spread": pytest.approx(1.0), "least": half, "most": half}
    assert families == [{"family": family} | figures for family in ("encoder", "models of batch 1")]


def test_kernels_are_counted_by_kind():
    names = ("nkib_bmm", "nkib_bmm_softmax", "nkib_rmsnorm_matmul", "nkib_silu")
    kinds = {name: chip.family_of(name, "kernel") for name in names}
    assert kinds == {"nkib_bmm": "kernels: products", "nkib_bmm_softmax": "kernels: attention",
                     "nkib_rmsnorm_matmul": "kernels: products", "nkib_silu": "kernels: elementwise"}
    assert chip.family_of("a", "encoder") == "encoder"


def test_cost_of_a_process_counts_its_own_cpu_time_and_memory():
    done = processes.run([sys.executable, "-c", "b = bytearray(b'x') * 80_000_000\nfor i in range(1000000): pass\nprint(7)"])
    assert (done.status, done.out, done.failure) == (0, "7\n", "")
    assert done.cpu_s > 0.01 and done.peak_mib > 76


def test_failure_is_the_line_that_says_why():
    done = processes.run([sys.executable, "-c", "import sys; sys.stderr.write('note\\nerror: it broke\\n'); sys.exit(3)"])
    assert (done.status, done.failure) == (3, "error: it broke")


def test_a_process_that_does_not_end_is_stopped():
    assert processes.run([sys.executable, "-c", "while True: pass"], timeout_s=0.3).failure == "stopped after 0 s"


def test_decoder_sees_its_cache_up_to_the_position():
    shape = Decoder(layers=2, hidden=16, heads=2, key_heads=1, inner=24, vocabulary=20, shards=1, tokens=3, places=8)
    module = read_text(decoder_text(shape))
    verify(module)
    random = np.random.default_rng(0)
    values = [(random.standard_normal(p.shape.dims) * 0.5).astype(p.shape.dtype.numpy) for p in module.entry.parameters]
    tokens, position, cache = shape.weights, shape.weights + 1, shape.weights + 2
    values[tokens], values[position] = np.array([[1, 5, 7]], np.int32), np.array(2, np.int32)
    found = evaluate(module, values)
    values[cache] = values[cache].copy()
    values[cache][:, 5:] = 9
    again = evaluate(module, values)
    assert np.array_equal(found[0], again[0])
    values[cache][:, :2] = 9
    assert not np.array_equal(found[0], evaluate(module, values)[0])


def test_the_large_decoder_has_seven_billion_parameters():
    assert 6.7e9 < SEVEN_BILLION.weight_elements < 7e9
