"""From files to examples to the tensors that a model is called with."""
