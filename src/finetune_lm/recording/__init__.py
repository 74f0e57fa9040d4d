"""What is put on record while a model learns: tables, curves."""
