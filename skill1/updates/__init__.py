"""One update on TRL: its configuration, micro-batches, precision, and what is kept of one that fails."""
