"""What a target can run and hold: the answers to what passes ask (nxcc.passes.cost)."""
