"""The environments behind other trainers' interfaces; each module needs its own package alone (docs/environments.md)."""
