"""Passes on loops: counted ones become work on all turns at once, or are written out."""
