"""Who runs what: device and host, the nodes that this cuts a module into, the stages of a pipeline."""
