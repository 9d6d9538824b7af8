"""Pieces of one size cover an extent, as few and with as little done again as can be."""

import pytest

from nxcc.backends.lowering.products.spans import even, ragged


@pytest.mark.parametrize("total", (1, 500, 512, 513, 1023, 1025, 1536, 3000, 5000, 7919, 8191, 8192, 99991))
@pytest.mark.parametrize("turns", (1, 2))
def test_even_pieces_cover_all_without_gaps(total: int, turns: int) -> None:
    found = even(total, 512, turns, tries=4)
    assert found is not None
    assert found.start == 0 and found.end == total and found.size <= 512 and found.again >= 0
    assert found.count == 1 or found.count % turns == 0
    assert (found.count == 1) == (total <= 512)


def test_pieces_that_come_out_even_do_nothing_again() -> None:
    assert even(5000, 512, 2) == even(5000, 500, 2)
    assert even(5000, 512, 2).again == 0  # type: ignore[union-attr]
    assert even(1023, 512, 2).again == 1  # type: ignore[union-attr]
    assert even(1023, 512, 2, again=False) is None or even(1023, 512, 2, again=False).again == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("total", (1, 512, 1100, 1536, 8191))
def test_ragged_pieces_cover_all_once(total: int) -> None:
    spans = ragged(total, 512, 2)
    assert sum(span.count * span.size for span in spans) == total
    assert [span.start for span in spans] == [0, *(span.end for span in spans)][:len(spans)]
