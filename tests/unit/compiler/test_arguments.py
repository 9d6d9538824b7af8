"""Command lines as users and frameworks write them, in plain form."""

import pytest

from nxcc.compiler.console.arguments import ACCEPTED, BY_FLAG, REPLACED, prepare, unknown_option
from nxcc.compiler.options import CompileOptions, options_from
from nxcc.ir.diagnostics import USAGE, CompileError

COMMANDS = ("compile", "check", "run", "verify")


def words_of(line: str) -> list[str]:
    return prepare(line.split(), COMMANDS).words


def test_options_before_the_command_are_moved_behind_it() -> None:
    assert words_of("--target=trn1 compile --framework XLA in.pb --output o.neff --verbose=35") == [
        "compile", "--target=v2", "--framework=XLA", "--output=o.neff", "--verbose=35", "--", "in.pb"]


@pytest.mark.parametrize("spelling", ["-O1", "-O 1", "--O 1", "--O1", "--optlevel 1", "--optlevel=1", "-O=1"])
def test_every_optlevel_spelling_is_one_option(spelling: str) -> None:
    assert words_of(f"compile {spelling} m") == ["compile", "--optlevel=1", "--", "m"]


def test_verbose_takes_a_level_only_if_one_follows() -> None:
    assert words_of("compile --verbose m.hlo") == ["compile", "--verbose=info", "--", "m.hlo"]
    assert words_of("compile --verbose 35 m.hlo") == ["compile", "--verbose=35", "--", "m.hlo"]


@pytest.mark.parametrize(("line", "folder"), [
    ("compile a/m.hlo.pb --pipeline compile SaveTemps", "m.temps"),
    ("compile --pipeline compile SaveTemps --output=o/x.neff m.pb", "o/x.temps"),
    ("compile --pipeline=SaveTemps m.pb -o x", "x.temps"),
])
def test_saved_temporaries_lie_beside_the_output(line: str, folder: str) -> None:
    found = prepare(line.split(), COMMANDS)
    assert f"--workdir={folder}" in found.words
    assert found.notices == [f"--pipeline SaveTemps keeps every stage's text in {folder}; --workdir chooses another"]
    given = prepare([*line.split(), "--workdir", "w"], COMMANDS)
    checked = prepare([*line.split(), "--query-compute"], COMMANDS)
    assert not any(word.startswith("--workdir") for word in checked.words)
    assert given.notices == [] and [word for word in given.words if word.startswith("--workdir")] == ["--workdir=w"]


DOCUMENTED = {
    "silent": """--framework XLA|--framework=xla|--target inf2|--target=trn1n|--model-type=transformer-inference
        |--model-type unet-inference|--auto-cast matmul|--auto-cast-type=fp8_e4m3|--native-int64 default
        |--implicit-integer-downcast default|--logical-nc-config 1|-lnc 1|--lnc 1|--optlevel 1|-O 2|-O3|--O 1
        |--logfile l.txt|--output o.neff|-o o.neff|--verbose 35|--verbose=35|--verbose INFO|--pipeline compile|--workdir w
        |--execute-repetition=1|--query-compute|--experimental-unsafe-fp8e4m3fn-as-fp8e4m3|--num-parallel-jobs 8
        |--neuroncore-pipeline-cores 1|--num-neuroncores 1|--cache_dir=kept|--no_cache|--io-config io.json|--fp32-cast all-fp16
        |--fast-math fp32-cast-matmult no-fast-relayout|--fast-math=none""",
    "noticed": """--native-int64 enabled|--implicit-integer-downcast dot,pow|--distribution-strategy llm-training
        |--distribution_strategy NEMO|--enable-mixed-precision-accumulation|--disable-mixed-precision-accumulation
        |--enable-saturate-infinity|--enable-fast-context-switch|--enable-fast-loading-neuron-binaries
        |--pipeline compile SaveTemps|--pipeline tensorize|--execute-repetition=2|--tensorizer-options=--x
        |--internal-hlo2tensorizer-options=--verify-hlo=false|--hlo2tensorizer-options=-x|--internal-backend-options=-x
        |--internal-max-instruction-limit=10000000|--enable-experimental-O1|--hbm-scratchpad-page-size=512|--disable-dge
        |--enable-internal-neff-wrapper|--retry_failed_compilation|--log_level=INFO|--dump=d|--batching_en
        |--rematerialization_en|--spill_dis|--sb_size 10|--enable-replication True|--static-weights|--topdown
        |--spill_depth_limit 4|--tensor-layout-heuristics=spatial-locality|--dynamic-batch-size|--internal-anything
        |--enable-experimental-anything""",
    "refused": """--target trn2
        |--framework MXNET|--logical-nc-config 2|--auto-cast bf16|--auto-cast-type int8|-O4|--verbose=loud
        |--native-int64 maybe|--implicit-integer-downcast add|--distribution-strategy mine|--fast-math all none|--fp32-cast f8
        |--enable-short-io|--otplevel 2""",
}
"""Every option that the vendor documents or that is seen in public use, with what becomes of it."""


@pytest.mark.parametrize(("kind", "line"), [(kind, " ".join(line.split())) for kind, text in DOCUMENTED.items()
                                            for line in text.split("|")])
def test_every_option_of_the_vendor_is_understood(kind: str, line: str) -> None:
    for words in (["compile", "m.pb", *line.split()], ["compile", *line.split(), "--", "m.pb"]):
        if kind == "refused":
            with pytest.raises(CompileError) as caught:
                prepare(words, COMMANDS, "")
            assert caught.value.code is USAGE and (caught.value.remedy or caught.value.why)
            continue
        found = prepare(words, COMMANDS, "")
        assert found.words[-1] == "m.pb" and len(found.notices) == (kind == "noticed")


def test_options_without_meaning_are_taken_out_and_noticed() -> None:
    found = prepare("compile m --pipeline tensorize --sb_size 70 --internal-thing --lnc 1".split(), COMMANDS)
    assert found.words == ["compile", "--", "m"]
    assert [notice.split(" is ")[0] for notice in found.notices] == [
        "--pipeline tensorize", "--sb_size 70", "--internal-thing"]


def test_old_cast_words_become_autocast() -> None:
    assert words_of("compile m --fp32-cast=matmult-fp16")[1:3] == ["--auto-cast=matmult", "--auto-cast-type=fp16"]
    assert words_of("compile m --fast-math none no-fast-relayout")[1:3] == ["--auto-cast=matmult", "--auto-cast-type=bf16"]


@pytest.mark.parametrize(("line", "text"), [
    ("compile --optlvel 2 m", "did you mean --optlevel?"),
    ("compile --target trn3 m", "cannot be trn3"),
    ("compile --auto-cast al m", "did you mean all?"),
    ("compile --lnc 2 m", "cannot be 2"),
    ("compile --lnc 3 m", "one of 1, 2"),
    ("compile --placement supprt m", "did you mean support?"),
    ("compile --native-int64 enable m", "did you mean enabled?"),
    ("compile --implicit-integer-downcast dot,pwo m", "did you mean pow?"),
    ("compile --distribution-strategy=llm-train m", "did you mean llm-training?"),
    ("compile m --fast-math fp32-cast-mtmult", "did you mean fp32-cast-matmult?"),
    ("compile m --fp32-cast matmul", "did you mean matmult?"),
    ("compile m --verbose=inf", "did you mean info?"),
    ("compile m --output", "needs a value"),
    ("compile m --fast-math all none", "exclude each other"),
    ("compile m --strip=no", "takes no value"),
])
def test_wrong_usage_is_named(line: str, text: str) -> None:
    with pytest.raises(CompileError) as caught:
        words_of(line)
    assert caught.value.code is USAGE
    assert text in str(caught.value)


def test_a_list_of_known_values_is_accepted() -> None:
    found = prepare("compile m --implicit-integer-downcast dot,pow".split(), COMMANDS)
    assert found.words == ["compile", "--", "m"]
    assert [notice.split(" is ")[0] for notice in found.notices] == ["--implicit-integer-downcast dot,pow"]


def test_words_of_a_file_replace_its_name(tmp_path) -> None:
    file = tmp_path / "flags"
    file.write_text("--strip 'a b'\n")
    assert words_of(f"compile @{file}") == ["compile", "--strip", "--", "a b"]


def test_a_file_that_names_itself_is_an_error(tmp_path) -> None:
    file = tmp_path / "flags"
    file.write_text(f"@{file}")
    with pytest.raises(CompileError, match="nested deeper"):
        words_of(f"compile @{file}")


def test_environment_flags_come_first_and_only_when_asked_for() -> None:
    line = "compile m --env-flags -O0".split()
    assert "--auto-cast=all" in prepare(line, COMMANDS, "--auto-cast all").words
    assert "--auto-cast=all" not in prepare(["compile", "m"], COMMANDS, "--auto-cast all").words


def test_other_commands_keep_their_words() -> None:
    assert words_of("run f.neff --inputs x --foo") == ["run", "f.neff", "--inputs", "x", "--foo"]


def test_commands_that_compile_too_know_the_vendors_words() -> None:
    words = words_of("--target inf1 verify m.pb --inputs in.npz --fast-math none --lnc 1 --strict -O1 --foo")
    assert words == ["verify", "--target=v1", "m.pb", "--inputs", "in.npz", "--auto-cast=matmult", "--auto-cast-type=bf16",
                     "--relayout=exact", "--strict", "--optlevel=1", "--foo"]


def test_a_flag_that_stands_for_another_is_said() -> None:
    found = prepare(["compile", "--enable-saturate-infinity", "m"], COMMANDS)
    assert found.words == ["compile", "--relayout=exact", "--", "m"]
    assert found.notices == ["--enable-saturate-infinity means --relayout=exact: an infinity stays in its own row where no "
                             "transpose is a product"]


def test_python_options_are_checked_as_the_command_line() -> None:
    assert options_from(target="inf2", optlevel=0) == CompileOptions(target="v2", optlevel="0")
    with pytest.raises(CompileError, match="did you mean auto_cast"):
        options_from(autocast="all")
    with pytest.raises(CompileError, match="none, matmult, all"):
        options_from(auto_cast="some")


def test_only_what_changes_the_output_is_recorded() -> None:
    effective = CompileOptions(output="a", quiet=True, auto_cast="all").effective()
    assert effective["auto-cast"] == "all"
    assert not {"output", "quiet", "workdir", "logfile"} & effective.keys()


@pytest.mark.parametrize("name", sorted(name for name in {*BY_FLAG, *REPLACED, *ACCEPTED} if len(name) > 8))
def test_the_nearest_name_is_that_of_which_a_letter_is_missing(name: str) -> None:
    assert unknown_option(name[:5] + name[6:]).remedy in (f"did you mean {name}?", f"did you mean {name.replace('_', '-')}?",
                                                          f"did you mean {name.replace('-', '_').replace('__', '--', 1)}?")
