"""What outlives a run: the database, and where it lives."""
