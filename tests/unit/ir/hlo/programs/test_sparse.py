"""Functions on sparse and ragged tensors, by their definitions."""

import numpy as np
import pytest

from nxcc.ir.hlo.programs.registry import find_function


def call(name: str, *values: object, **attributes: object) -> list:
    function = find_function(name)
    assert function is not None
    return [found.tolist() for found in function.evaluate(attributes, *map(np.asarray, values))]


def test_empty_rows_are_filled_in_order() -> None:
    places, values, empty, went = call("SparseFillEmptyRows", [[1, 0], [3, 2]], [5, 7], [4, 3], 9)
    assert (places, values) == ([[0, 0], [1, 0], [2, 0], [3, 2]], [9, 5, 9, 7])
    assert (empty, went) == ([True, False, True, False], [1, 3])


def test_reshape_counts_places_anew() -> None:
    assert call("SparseReshape", [[0, 1], [1, 2]], [2, 3], [3, -1]) == [[[0, 1], [2, 1]], [3, 2]]
    with pytest.raises(ValueError, match="cannot be reshaped"):
        call("SparseReshape", [[0, 1]], [2, 3], [4, 2])


@pytest.mark.parametrize(("kind", "rows"), [("Sum", [[3.0], [0.0], [9.0]]), ("Mean", [[1.5], [0.0], [9.0]]),
                                            ("SqrtN", [[3 / np.sqrt(2)], [0.0], [9.0]])])
def test_segments_of_chosen_rows(kind: str, rows: list) -> None:
    (found,) = call(f"SparseSegment{kind}", [[1.0], [2.0], [9.0]], [0, 1, 2], [0, 0, 2])
    np.testing.assert_allclose(found, rows)


def test_segments_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="in order"):
        call("SparseSegmentSum", [[1.0]], [0, 0], [1, 0])


def test_ragged_rows_become_a_matrix_and_places() -> None:
    splits, values = [0, 2, 2, 3], [4, 5, 6]
    kinds = {"row_partition_types": ["ROW_SPLITS"]}
    assert call("RaggedTensorToTensor", [-1, -1], values, 0, splits, **kinds) == [[[4, 5], [0, 0], [6, 0]]]
    assert call("RaggedTensorToTensor", [2, 1], values, 0, splits, **kinds) == [[[4], [0]]]
    assert call("RaggedTensorToSparse", splits, values) == [[[0, 0], [0, 1], [2, 0]], [4, 5, 6], [3, 2]]


def test_bins_ignore_what_is_outside() -> None:
    assert call("Bincount", [0, 2, 2, 5, -1], 3, np.empty(0, np.int32)) == [[1, 0, 2]]
    assert call("DenseBincount", [[0, 1], [1, 1]], 2, np.empty(0, np.int32), binary_output=True) == [[[1, 1], [0, 1]]]
