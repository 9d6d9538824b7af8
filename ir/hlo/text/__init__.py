"""HLO text, both ways."""
