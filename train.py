"""``python train.py [overrides]``: see README.md."""

from segtrail.cli import train

if __name__ == "__main__":
    train()
