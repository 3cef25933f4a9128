"""``python -m segtrail VERB ...``."""

from segtrail.cli import main

main()
