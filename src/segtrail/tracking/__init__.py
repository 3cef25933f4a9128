"""Trackers and the names in a run."""
