"""RetroAgent (arXiv 2603.08561): half of a group remembers, every episode is reflected on, progress is rewarded."""
