"""From fused HLO to machine code, and the simulator that runs it."""
