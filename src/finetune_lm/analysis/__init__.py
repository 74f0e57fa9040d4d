"""Results read back: frames of tokens and words, and the commands that make tables of them."""
