"""The compile cache: what hits, what misses, that a hit is the same bytes, and that damage and races do no harm."""

import json
import os
import subprocess
import sys

import pytest

from nxcc import cli
from nxcc.compiler.cache.store import Cache, Key, first_difference

MODEL = "HloModule m\nENTRY e {\n  a = f32[4] parameter(0)\n  w = f32[4] parameter(1)\n  ROOT r = f32[4] add(a, w)\n}\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NXCC_CACHE_DIR", raising=False)
    (tmp_path / "model.hlo").write_text(MODEL)
    return tmp_path


def compiled(capsys, *words):
    """The report of a compile that ends well."""
    assert cli.main(["compile", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_second_compile_is_a_hit_with_the_same_bytes_and_report(folder, capsys):
    first = compiled(capsys, "model.hlo", "-o", "a.neff", "--cache-dir", "c")
    second = compiled(capsys, "model.hlo", "-o", "b.neff", "--cache_dir=c", "--depfile", "b.d")
    compiled(capsys, "model.hlo", "-o", "plain.neff")
    assert (first["cache"]["hit"], second["cache"]["hit"]) == (False, True)
    assert (folder / "a.neff").read_bytes() == (folder / "b.neff").read_bytes() == (folder / "plain.neff").read_bytes()
    own = ("cache", "output")
    assert {k: v for k, v in first.items() if k not in own} == {k: v for k, v in second.items() if k not in own}
    assert (folder / "b.d").read_text() == "b.neff: model.hlo\n"


def test_content_counts_and_the_file_name_does_not(folder, capsys):
    (folder / "copy.txt").write_text(MODEL)
    (folder / "other.hlo").write_text(MODEL.replace("add", "subtract"))
    compiled(capsys, "model.hlo", "--cache-dir", "c")
    assert compiled(capsys, "copy.txt", "--cache-dir", "c")["cache"]["hit"]
    assert not compiled(capsys, "other.hlo", "--cache-dir", "c")["cache"]["hit"]


def test_an_io_config_counts_by_its_content(folder, capsys):
    (folder / "g.pbtxt").write_text('node { name: "x" op: "Placeholder" attr { key: "dtype" value { type: DT_FLOAT } } }\n'
                                    'node { name: "y" op: "Neg" input: "x" attr { key: "T" value { type: DT_FLOAT } } }\n')
    for name, dims in (("a.json", "[2]"), ("b.json", "[2]"), ("c.json", "[3]")):
        (folder / name).write_text(f'{{"inputs": {{"x:0": [{dims}, "float32"]}}, "outputs": ["y:0"]}}')
    hits = [compiled(capsys, "g.pbtxt", "--io-config", name, "--cache-dir", "c")["cache"]["hit"]
            for name in ("a.json", "b.json", "c.json")]
    assert hits == [False, True, False]


def test_show_is_another_name_of_list(folder, capsys):
    compiled(capsys, "model.hlo", "--cache-dir", "c")
    shown = []
    for word in ("list", "show"):
        assert cli.main(["cache", word, "--cache-dir", "c"]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] and "v2" in shown[0]


@pytest.mark.parametrize("words", [["-O1"], ["--target", "v1"], ["--weight-params", "1"], ["--strip"], ["--weights", "w.npz"]])
def test_what_changes_the_output_misses(folder, capsys, words):
    import numpy as np
    np.savez(folder / "w.npz", w=np.ones(4, np.float32))
    compiled(capsys, "model.hlo", "--cache-dir", "c")
    assert not compiled(capsys, "model.hlo", "--cache-dir", "c", *words)["cache"]["hit"]
    assert compiled(capsys, "model.hlo", "--cache-dir", "c", *words)["cache"]["hit"]
    np.savez(folder / "w.npz", w=np.zeros(4, np.float32))
    assert compiled(capsys, "model.hlo", "--cache-dir", "c", *words)["cache"]["hit"] == ("--weights" not in words)


@pytest.mark.parametrize("words", [["--timing"], ["--workdir", "w"], ["--stop-after", "passes"], ["--no-cache"]])
def test_a_compile_that_is_asked_for_more_runs(folder, capsys, words):
    compiled(capsys, "model.hlo", "--cache-dir", "c")
    assert "cache" not in compiled(capsys, "model.hlo", "--cache-dir", "c", *words)


def test_warnings_of_a_compile_are_said_again(folder, capsys):
    words = ("model.hlo", "--cache-dir", "c", "--target", "v1", "--auto-cast", "none")
    first = compiled(capsys, *words)
    assert first["notices"] and compiled(capsys, *words)["notices"] == first["notices"]


def test_a_damaged_entry_is_built_again(folder, capsys):
    key = compiled(capsys, "model.hlo", "-o", "a.neff", "--cache-dir", "c")["cache"]["key"]
    held = folder / "c" / "v1" / key[:2] / key[2:] / "out.neff"
    held.write_bytes(held.read_bytes()[:-1] + b"x")
    again = compiled(capsys, "model.hlo", "-o", "b.neff", "--cache-dir", "c")
    assert not again["cache"]["hit"] and (folder / "a.neff").read_bytes() == (folder / "b.neff").read_bytes()
    assert held.read_bytes() == (folder / "a.neff").read_bytes()


def test_the_environment_names_the_folder(folder, capsys, monkeypatch):
    monkeypatch.setenv("NXCC_CACHE_DIR", str(folder / "e"))
    compiled(capsys, "model.hlo")
    assert compiled(capsys, "model.hlo")["cache"] == {"folder": str(folder / "e"), "hit": True,
                                                      "key": os.listdir(folder / "e/v1")[0]
                                                      + os.listdir(next((folder / "e/v1").iterdir()))[0]}


def test_compiles_at_once_share_a_cache(folder):
    words = [sys.executable, "-m", "nxcc.cli", "compile", "model.hlo", "--cache-dir", "c", "-q", "-o"]
    running = [subprocess.Popen([*words, f"{n}.neff"]) for n in range(4)]
    assert [child.wait() for child in running] == [0] * 4
    assert len({(folder / f"{n}.neff").read_bytes() for n in range(4)}) == 1
    cache = Cache("c")
    assert len(cache.entries()) == 1 and not cache.damaged()
    assert [name for name in os.listdir(cache.root) if name.startswith("tmp-")] == []


def test_a_cache_that_cannot_be_written_is_a_warning(folder, capsys):
    (folder / "c").write_text("a file")
    assert cli.main(["compile", "model.hlo", "--cache-dir", "c"]) == 0
    assert "not kept in the cache" in capsys.readouterr().err


def test_a_url_is_wrong_usage(folder, capsys):
    assert cli.main(["compile", "model.hlo", "--cache_dir=s3://bucket/x"]) == 2
    assert "not a folder" in capsys.readouterr().err


def kept(cache, name, size, used):
    """An entry of about `size` bytes, last used at `used`."""
    path = os.path.join(cache.folder, "made")
    with open(path, "wb") as file:
        file.write(name.encode() * size)
    key = Key({"n": name})
    cache.keep(key, path, {"model": name})
    os.utime(os.path.join(cache._path(key.digest), "key.json"), (used, used))
    return key.digest


def test_least_recently_used_entries_go_first(tmp_path):
    cache = Cache(str(tmp_path))
    old, _used, new = (kept(cache, name, 10000, at) for name, at in (("a", 1000), ("b", 2000), ("c", 3000)))
    assert cache.deliver(old, str(tmp_path / "out")) == {"model": "a"}
    cache.prune(limit_bytes=21000)
    assert [entry.digest for entry in cache.entries()] == [new, old]


def test_a_write_cuts_the_cache_down_to_its_limit(tmp_path):
    cache = Cache(str(tmp_path), limit_bytes=21000)
    _first, second, third = (kept(cache, name, 10000, at) for name, at in (("a", 1000), ("b", 2000), ("c", 3000)))
    assert [entry.digest for entry in cache.entries()] == [second, third]


def test_commands_list_prune_verify_why_and_clear(folder, capsys):
    one = compiled(capsys, "model.hlo", "--cache-dir", "c")["cache"]["key"]
    other = compiled(capsys, "model.hlo", "--cache-dir", "c", "-O1")["cache"]["key"]

    def said(*words):
        assert cli.main(["cache", *words, "--cache-dir", "c", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    assert {row["key"] for row in said("list")["entries"]} == {one, other}
    assert said("why", one[:9], other[:9])["difference"] == 'options.optlevel: "2" against "1"'
    assert said("verify")["removed"] == []
    assert said("prune", "--older", "1h")["removed"] == []
    assert said("prune", "--max-size", "1K")["entries_left"] == 0
    compiled(capsys, "model.hlo", "--cache-dir", "c")
    assert len(said("clear")["removed"]) == 1 and said("list")["entries"] == []
    assert cli.main(["cache", "prune", "--older", "soon", "--cache-dir", "c"]) == 2


def test_first_difference_names_the_row():
    assert first_difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 1}, "c": 3}) == "c: 2 against 3"
    assert first_difference({"a": 1}, {"a": 1}) == ""
