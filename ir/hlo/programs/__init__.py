"""Host programs: steps on arrays whose sizes only a run knows, held in one custom call whose own result has a fixed shape."""
