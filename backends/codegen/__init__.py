"""From modules that the device runs to a machine program: regions, their memory, their order in the main streams."""
