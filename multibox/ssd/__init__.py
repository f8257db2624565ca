"""The paper, one concept a file: coder, matching, loss, network, postprocessing."""
