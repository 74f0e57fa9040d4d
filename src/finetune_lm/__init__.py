"""Controlled fine-tuning experiments on language models, every token's surprisal on record."""
