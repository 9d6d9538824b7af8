"""Between a person at a terminal and the verbs: arguments, progress, interrupts, limits of time."""
