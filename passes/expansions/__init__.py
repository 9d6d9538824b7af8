"""Passes that write operators of HLO and custom calls in plainer ones."""
