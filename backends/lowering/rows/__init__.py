"""Row programs: regions that keep rows apart."""
