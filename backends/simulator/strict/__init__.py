"""The strict simulator: random legal orders, and an error for whatever the machine would not forgive."""
