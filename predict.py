"""``python predict.py [overrides]``: see README.md."""

from segtrail.cli import predict

if __name__ == "__main__":
    predict()
