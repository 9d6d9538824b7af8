"""From HLO operators to tile programs, one operator family a file."""
