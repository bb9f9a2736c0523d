"""``python -m keypatch``."""

from keypatch.cli import main

main()
