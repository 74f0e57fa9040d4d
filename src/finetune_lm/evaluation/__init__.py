"""Validation, probes and tests: passes over data with a model that does not learn."""
