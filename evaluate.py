"""``python evaluate.py [overrides]``: see README.md."""

from segtrail.cli import evaluate

if __name__ == "__main__":
    evaluate()
