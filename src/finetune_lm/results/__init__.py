"""What a run leaves behind: tables, plots, records of how it was made."""
