"""The targets: the facts of each are a TOML file here; the names by which users know it stand in this table."""

CHIPS: dict[str, tuple[str, ...]] = {
    "v1": ("inf1",),
    "v2": ("inf2", "trn1", "trn1n"),
}
"""Target -> the chips that have it. Source: command line reference, option --target."""

TARGET_OF = {chip: target for target, chips in CHIPS.items() for chip in chips}
ALIASES = TARGET_OF | {target: target for target in CHIPS}
"""Names a user may give, each with the target that it means."""
