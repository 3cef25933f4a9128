"""LightningModules, optimizers and the run."""
