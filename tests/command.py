"""The command line, run in the tests' own process."""

import sys

import pytest

from fedsim.cli import main as cli


def fedsim(capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and error."""
    sys.argv = ["fedsim", *map(str, arguments)]
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err
