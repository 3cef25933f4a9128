"""Events of training turned into tracker calls."""
