"""TensorFlow graphs as input: reading GraphDef and SavedModel without TensorFlow, and lowering them to HLO."""
