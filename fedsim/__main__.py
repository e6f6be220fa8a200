"""`python -m fedsim`: the command line."""

from fedsim.cli.main import main

main()
