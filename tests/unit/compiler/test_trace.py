"""Trace files: events that viewers take, nested properly, with flows that begin and end inside of work."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from nxcc.compiler.driver import Request, compile_file
from nxcc.compiler.options import CompileOptions
from nxcc.compiler.reports.profile import ProfileRequest, profile_file
from nxcc.compiler.reports.trace import lanes

TEXT = """HloModule m
ENTRY main {
  x = f32[256,256] parameter(0)
  w = f32[256,512] parameter(1)
  y = f32[256,512] dot(x, w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT t = f32[256,512] tanh(y)
}
"""


def trace(folder: Path, **options: object) -> dict:
    (folder / "m.hlo").write_text(TEXT)
    compile_file(Request(str(folder / "m.hlo"), CompileOptions(output=str(folder / "m.neff"), **options)))
    profile_file(ProfileRequest(str(folder / "m.neff"), trace=str(folder / "t.json")))
    return json.loads((folder / "t.json").read_text())


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return trace(tmp_path_factory.mktemp("trace"))["traceEvents"]


NUMBER = (int, float)
FIELDS: dict[str, dict[str, object]] = {
    "X": {"name": str, "pid": int, "tid": int, "ts": NUMBER, "dur": NUMBER},
    "M": {"name": str, "pid": int, "args": dict},
    "C": {"name": str, "pid": int, "ts": NUMBER, "args": dict},
    "s": {"name": str, "cat": str, "id": (int, str), "pid": int, "tid": int, "ts": NUMBER},
    "f": {"name": str, "cat": str, "id": (int, str), "pid": int, "tid": int, "ts": NUMBER, "bp": str},
}
"""Required fields of the phases that are written. Source: "Trace Event Format", sections Complete, Metadata, Counter and Flow
Events."""
ALLOWED = {"name", "cat", "ph", "ts", "dur", "pid", "tid", "args", "id", "bp"}
METADATA = {"process_name": ("name", str), "thread_name": ("name", str), "thread_sort_index": ("sort_index", int)}


def fault(event: dict) -> str:
    """What the format does not allow in an event; empty if it is well formed."""
    required = FIELDS.get(event.get("ph", ""))
    if required is None:
        return "phase"
    wrong = [key for key, kind in required.items() if not isinstance(event.get(key), kind) or isinstance(event[key], bool)]
    wrong += sorted(event.keys() - ALLOWED)
    wrong += [key for key in ("ts", "dur") if key in event and not 0 <= event[key] < float("inf")]
    if event["ph"] == "M":
        key, kind = METADATA.get(event["name"], ("", object))
        wrong += [] if set(event["args"]) == {key} and isinstance(event["args"][key], kind) else ["metadata"]
    if event["ph"] == "C":
        wrong += [] if event["args"] and all(isinstance(value, NUMBER) for value in event["args"].values()) else ["series"]
    if event["ph"] == "f":
        wrong += [] if event["bp"] == "e" else ["bp"]
    return ", ".join(wrong)


@pytest.mark.parametrize("options", [{}, {"keep_on_host": "^t$"}, {"target": "v1", "neuroncore_pipeline_cores": 2}],
                         ids=["device", "host", "pipeline"])
def test_every_event_has_the_form_that_viewers_take(tmp_path: Path, options: dict) -> None:
    document = trace(tmp_path, **options)
    assert document["displayTimeUnit"] in ("ms", "ns") and document.keys() <= {"displayTimeUnit", "traceEvents"}
    assert [found for event in document["traceEvents"] if (found := fault(event))] == []
    processes = {event["pid"] for event in document["traceEvents"]}
    assert processes == {event["pid"] for event in document["traceEvents"] if event["name"] == "process_name"}
    flows = [(event["ph"], event["name"], event["id"]) for event in document["traceEvents"] if event["ph"] in "sf"]
    assert len(set(flows)) == len(flows)


def slices(events):
    threads: dict[int, list[tuple[float, float]]] = {}
    for event in events:
        if event["ph"] == "X":
            threads.setdefault(event["tid"], []).append((round(event["ts"] * 1e4), round((event["ts"] + event["dur"]) * 1e4)))
    return threads


def test_slices_of_a_thread_do_not_overlap(events):
    for rows in slices(events).values():
        rows.sort()
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(rows))


def test_every_thread_with_slices_has_a_name(events):
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert set(slices(events)) == named


def test_flows_pair_up_inside_of_slices(events):
    threads = slices(events)
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys() and starts
    for event in (*starts.values(), *ends.values()):
        assert any(low <= round(event["ts"] * 1e4) < high for low, high in threads[event["tid"]])
    assert all(starts[key]["ts"] <= ends[key]["ts"] for key in starts)


def test_events_of_a_thread_and_of_a_counter_come_in_order(events):
    last: dict[object, float] = {}
    for event in events:
        if event["ph"] != "M":
            row = event.get("tid", event["name"])
            assert event["ts"] >= last.get(row, 0)
            last[row] = event["ts"]


def test_occupancy_is_a_counter_that_ends_empty(events):
    counters = [event for event in events if event["ph"] == "C" and event["name"].startswith("SBUF")]
    assert max(event["args"]["bytes"] for event in counters) > 0
    assert counters[-1]["args"]["bytes"] == 0


def test_overlapping_spans_of_a_row_get_lanes():
    rows = [(0, 0, 0, 0, 10, -1), (0, 0, 0, 5, 15, -1), (0, 0, 0, 10, 20, -1), (1, 0, 0, 5, 15, -1)]
    assert lanes(np.array(rows)).tolist() == [0, 1, 0, 0]
