"""A series of checkpoints of one model, each of which is tested."""
