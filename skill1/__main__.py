"""`python -m skill1`: the command line, as torchrun starts it."""

from skill1.cli.main import main

main()
