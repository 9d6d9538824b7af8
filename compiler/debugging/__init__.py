"""Finding and reducing what goes wrong."""
