"""Statistics between runs."""
