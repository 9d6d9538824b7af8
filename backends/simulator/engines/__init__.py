"""What each instruction does to arrays, one engine family a file, mirroring `isa/instructions`."""
