"""Functions on strings: what TensorFlow's documentation and measurements say of them; and the table of a run."""

import numpy as np
import pytest

from nxcc.ir.hlo.programs.fingerprint import fingerprint64
from nxcc.ir.hlo.programs.registry import find_function
from nxcc.ir.hlo.texts import current, fresh, to_numbers, to_texts


def call(name: str, *values: np.ndarray, **attributes: object) -> list:
    """A function's results; arrays of strings go in and come out as such."""
    function = find_function(name)
    assert function is not None
    with fresh():
        found = function.evaluate(attributes, *(to_numbers(v) if v.dtype.kind in "SUO" else v for v in values))
        return [to_texts(v).tolist() if v.dtype == np.uint32 else v.tolist() for v in found]


def texts(*words: str) -> np.ndarray:
    return np.array([word.encode() for word in words], object)


@pytest.mark.parametrize(("text", "value"), [
    (b"", 0x9AE16A3B2F90404F), (b"a", 12917804110809363939), (b"abcd", 1897425971756105985),
    (b"0123456789", 12467408821976941803), (bytes(range(20)), 10220892904819695849),
    (bytes(range(50)), 12334112670463347188), (bytes(range(200)), 525935771297148851)])
def test_fingerprint_of_every_length_class(text: bytes, value: int) -> None:
    assert fingerprint64(text) == value


def test_split_of_bytes_words_and_marks() -> None:
    assert call("StringSplit", texts("ab", "", "c"), np.array(b"", object), skip_empty=True) == \
        [[[0, 0], [0, 1], [2, 0]], [b"a", b"b", b"c"], [3, 2]]
    assert call("StringSplit", texts("a,b;c", ",,"), np.array(b",;", object), skip_empty=False)[1:] == \
        [[b"a", b"b", b"c", b"", b"", b""], [2, 3]]
    assert call("StringSplitV2", texts(" a  b ", "c"), np.array(b"", object), maxsplit=-1)[1] == [b"a", b"b", b"c"]
    assert call("StringSplitV2", texts("a--b--c"), np.array(b"--", object), maxsplit=1)[1] == [b"a", b"b--c"]


def test_n_grams_pad_and_keep_short_rows() -> None:
    given = {"separator": "|", "ngram_widths": [2], "left_pad": "<", "right_pad": ">", "pad_width": 0,
             "preserve_short_sequences": False}
    splits = np.array([0, 3, 4])
    assert call("StringNGrams", texts("a", "b", "c", "d"), splits, **given) == [[b"a|b", b"b|c"], [0, 2, 2]]
    assert call("StringNGrams", texts("a", "b", "c", "d"), splits, **given | {"pad_width": -1}) == \
        [[b"<|a", b"a|b", b"b|c", b"c|>", b"<|d", b"d|>"], [0, 4, 6]]
    assert call("StringNGrams", texts("a", "b", "c", "d"), splits, **given | {"preserve_short_sequences": True})[0][-1] == b"d"


def test_splits_that_do_not_divide_the_strings_are_refused() -> None:
    with pytest.raises(ValueError, match="do not divide"):
        call("StringNGrams", texts("a"), np.array([0, 2]), separator="", ngram_widths=[1], left_pad="", right_pad="",
             pad_width=0, preserve_short_sequences=False)


def test_patterns_are_those_of_re2() -> None:
    assert call("StaticRegexReplace", texts("a.b-c"), pattern="[[:punct:]]", rewrite="_", replace_global=False) == [[b"a_b-c"]]
    assert call("StaticRegexReplace", texts("xy"), pattern="(x)(y)", rewrite=r"\2\1", replace_global=True) == [[b"yx"]]
    with pytest.raises(ValueError, match="cannot be read"):
        call("StaticRegexReplace", texts("xy"), pattern="(", rewrite="", replace_global=True)


def test_equal_strings_have_one_number_and_a_run_its_own_table() -> None:
    with fresh():
        assert to_numbers(np.array(["b", "", "b"])).tolist() == [1, 0, 1]
    with fresh():
        assert current().number(b"c") == 1
        with pytest.raises(ValueError, match="no string 2"):
            to_texts(np.array([2], np.uint32))
