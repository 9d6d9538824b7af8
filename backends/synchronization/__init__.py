"""What waits for what inside a region: derived from the tile program, never written by a lowering rule."""
