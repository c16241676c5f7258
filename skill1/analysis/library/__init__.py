"""What a run's skill library holds, how it is used, and what it is worth."""
