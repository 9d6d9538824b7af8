"""The tile program: loops, buffers, engine instructions on access patterns."""
