"""nxcc: an open ahead-of-time compiler for AWS NeuronCore v1 and v2."""
