"""Web UI to compare runs."""
