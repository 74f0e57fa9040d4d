"""The loop: learn, look at the validation data, keep the best."""
