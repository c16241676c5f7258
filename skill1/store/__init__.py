"""Where a run is kept: its directory, journal, checkpoints, rollout log and evaluations."""
