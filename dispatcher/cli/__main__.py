"""Lets `python -m dispatcher.cli` run a command."""

from dispatcher.cli import main

main()
