"""What a run is: its directory, lock and record, and how it is stopped and gone on with."""
