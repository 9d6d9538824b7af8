"""The version that a NEFF records; the package's metadata says the same, but takes longer to ask."""

VERSION = "0.1.0"
