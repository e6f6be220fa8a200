"""The same things as the command line, as functions for a notebook.

In: a config, or folders of runs. Out: a run folder with its report, tables, verdicts. What a
user can mend is raised as a `FedsimError`, of which `ConfigError` is one.
"""

from fedsim.api.folders import new_folder, newest_unfinished
from fedsim.api.recordings import attack
from fedsim.api.reports import check, report
from fedsim.api.results import answers, last_audit, means
from fedsim.api.runs import Run, resume, run
from fedsim.core.errors import ConfigError, FedsimError

__all__ = [
    "ConfigError",
    "FedsimError",
    "Run",
    "answers",
    "attack",
    "check",
    "last_audit",
    "means",
    "new_folder",
    "newest_unfinished",
    "report",
    "resume",
    "run",
]
