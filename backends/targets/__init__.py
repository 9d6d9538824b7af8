"""The facts of each target, one TOML file each."""
