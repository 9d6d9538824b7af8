"""Options of the test run."""

import os

import pytest

# Before numpy is imported: threads of BLAS and parallel test processes would wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from nxcc.passes import rewriting  # noqa: E402

rewriting.GIVES_UP = False


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite what golden cases expect")
