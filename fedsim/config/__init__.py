"""The config room: one TOML file, checked whole before anything starts.

In: a file, settings from the command line. Out: a frozen `Config` of sections, or one sentence;
for people and editors, the reference of all keys.
"""

from fedsim.config.adversary import Grading, Knowledge, Record
from fedsim.config.audit import Audit
from fedsim.config.check import Check
from fedsim.config.commented import commented
from fedsim.config.engine import Engine
from fedsim.config.federation import Federation
from fedsim.config.fields import Part, Section
from fedsim.config.foreign import Foreign, Source
from fedsim.config.game import Game
from fedsim.config.grid import Cell, cells, parse_over, seeds
from fedsim.config.reading import dump, parse, parse_json, read, to_json
from fedsim.config.reference import keys, schema, tables
from fedsim.config.root import Config
from fedsim.config.rules import Rule, parse_rule
from fedsim.config.search import named, nearest_key, search
from fedsim.config.track import Track
from fedsim.config.training import Data, Local, Lora, Model

__all__ = [
    "Audit",
    "Cell",
    "Check",
    "Config",
    "Data",
    "Engine",
    "Federation",
    "Foreign",
    "Game",
    "Grading",
    "Knowledge",
    "Local",
    "Lora",
    "Model",
    "Part",
    "Record",
    "Rule",
    "Section",
    "Source",
    "Track",
    "cells",
    "commented",
    "dump",
    "keys",
    "named",
    "nearest_key",
    "parse",
    "parse_json",
    "parse_over",
    "parse_rule",
    "read",
    "schema",
    "search",
    "seeds",
    "tables",
    "to_json",
]
