"""One HLO-to-HLO pass a file."""
