"""Imported once by the process that test jobs are forked from; computes nothing."""

import neptune
import optuna
import pytorch_lightning
import torch

torch.set_num_threads(1)
assert neptune
assert optuna
assert pytorch_lightning
