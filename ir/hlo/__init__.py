"""HLO: module, operators, readers, writers, verifier, oracle."""
