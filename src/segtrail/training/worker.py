"""``python -m segtrail.training.worker CONFIG PARENT``: one further rank of a job, started by its rank 0."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path


def main(config_file: str, parent: int) -> None:
    """Trains with the config in the file as the rank that the environment says."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    logging.basicConfig(level=logging.WARNING, format=f"[rank {os.environ['LOCAL_RANK']}] %(message)s")
    from omegaconf import DictConfig, OmegaConf

    from segtrail.config.compose import register
    from segtrail.training.run import train

    register()
    config = OmegaConf.create(Path(config_file).read_text(encoding="utf-8"))
    assert isinstance(config, DictConfig)
    train(config)


def _end_with(parent: int) -> None:
    """A rank whose rank 0 was killed would wait in a collective: it ends instead."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
