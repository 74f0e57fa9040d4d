"""Which kinds of model there are, and how one is loaded."""
