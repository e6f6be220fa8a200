"""The command line, run in the tests' own process."""

import sys
from unittest import mock

import pytest

from fedsim.cli import main as cli


def fedsim(capsys, *arguments):
    """Run the command line in this process; return exit code, standard output and error."""
    sys.argv = ["fedsim", *map(str, arguments)]
    main = sys.modules["__main__"]  # under `python -m pytest` usage would name pytest's
    with mock.patch.object(main, "__package__", ""), pytest.raises(SystemExit) as exit_:
        cli.main()
    printed = capsys.readouterr()
    return exit_.value.code, printed.out, printed.err
