"""Neptune-compatible run store and server."""
