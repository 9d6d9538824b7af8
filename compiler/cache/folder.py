"""Where the compile cache lies."""

from __future__ import annotations

import os

from nxcc.compiler.options import CompileOptions

CACHE_VARIABLE = "NXCC_CACHE_DIR"


def cache_folder(options: CompileOptions) -> str:
    """Where the cache lies; empty if it is not used."""
    if options.no_cache:
        return ""
    named = options.cache_dir or os.environ.get(CACHE_VARIABLE, "")
    return named or (default_folder() if options.cache else "")


def default_folder() -> str:
    """The user's cache folder."""
    from platformdirs import user_cache_dir
    return user_cache_dir("nxcc", appauthor=False)
