"""What nxcc tells of a module or a NEFF: estimates, profiles, plans, advice."""
