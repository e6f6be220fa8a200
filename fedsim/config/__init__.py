"""The config room: one TOML file, checked whole before anything starts.

In: a file, settings from the command line. Out: a frozen `Config` of sections, or one sentence.
"""

from fedsim.config.audit import Audit
from fedsim.config.federation import Federation
from fedsim.config.fields import Part, Section
from fedsim.config.foreign import Foreign
from fedsim.config.game import Game
from fedsim.config.grid import Cell, cells, parse_over
from fedsim.config.root import (
    Config,
    Data,
    Engine,
    Known,
    Local,
    Model,
    Record,
    dump,
    parse,
    parse_json,
    read,
    to_json,
)

__all__ = [
    "Audit",
    "Cell",
    "Config",
    "Data",
    "Engine",
    "Federation",
    "Foreign",
    "Game",
    "Known",
    "Local",
    "Model",
    "Part",
    "Record",
    "Section",
    "cells",
    "dump",
    "parse",
    "parse_json",
    "parse_over",
    "read",
    "to_json",
]
