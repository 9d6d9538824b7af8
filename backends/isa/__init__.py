"""The machine level: instructions, encoding, disassembly, verifier."""
