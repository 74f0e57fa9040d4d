"""From tokens to words, and from logits to what each token costs."""
