"""Everything private that is used of Flower, piece by piece, and what happens without it."""

import ast
import logging
import re
import sys
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from fedsim import api
from fedsim.config import Part
from fedsim.core.pieces import MissingPiece
from fedsim.core.wire import CONFIG
from fedsim.deploy import doors
from fedsim.deploy.flower_private import BUNDLES, KEYS, LINK, NODE
from fedsim.federation import flower_private
from fedsim.federation.flower_private import SIMULATION
from strategies import OrderedGrid
from strategies.flower_private import GRID, SECAGG
from strategies.secagg_plus import SecAggPlusRecording
from tests.builders import grid_of, small_config

pytestmark = [pytest.mark.untyped, pytest.mark.usefixtures("undrawn")]

ROOT = Path(__file__).parents[2]
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
FEATURES = [SIMULATION, GRID, SECAGG, LINK, KEYS, NODE, BUNDLES]


@pytest.mark.parametrize(
    ("pieces", "name"),
    [pytest.param(p, name, id=p.paths[name]) for p in FEATURES for name in p.paths],
)
def test_flower_has_the_piece(pieces, name):
    assert pieces.get(name) is not None


def test_nothing_else_of_flower_is_private():
    rooms = ("fedsim", "strategies", "clients", "adversary", "defenses")
    imported = {}
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                if name.split(".")[0] == "flwr" and name not in PUBLIC:
                    imported[str(path.relative_to(ROOT))] = name
    assert imported == {}


def without(monkeypatch, pieces, name):
    """Take a piece away; return the sentence about it."""
    path = pieces.paths[name]
    monkeypatch.delattr(path.replace(":", "."))
    return rf"^flwr: must have {path} for {pieces.feature}, got [0-9.]+ without it$"


def number(client):
    return RecordDict({CONFIG: ConfigRecord({"client": str(client)})})


def test_without_an_identity_nothing_is_simulated_and_recordings_are_attacked(
    tmp_path, monkeypatch
):
    run = api.run(small_config(federation={"rounds": 1, "clients": 2}), tmp_path / "run")
    with monkeypatch.context() as patch:
        sentence = without(patch, SIMULATION, "TaskIdentity")
        with pytest.raises(MissingPiece, match=sentence):
            api.run(small_config(), tmp_path / "other")
        assert not (tmp_path / "other").exists()
        assert api.attack(run.path, [Part(name="idlg")]).num_rows > 0


def test_a_message_that_keeps_its_number_elsewhere_is_not_numbered_in_silence(monkeypatch):
    grid = grid_of(1, number)
    monkeypatch.setattr(flower_private, "MESSAGE_ID", "_elsewhere")
    with pytest.raises(MissingPiece, match=r"flwr.app:Metadata._elsewhere for the engines"):
        list(grid.send_and_receive([Message(RecordDict(), 2, "query")]))


@pytest.mark.parametrize("name", GRID.paths)
def test_without_the_deployed_grid_rounds_go_on_without_a_deadline(name, monkeypatch, caplog):
    grid = grid_of(2, number)
    sentence = without(monkeypatch, GRID, name)
    with caplog.at_level(logging.WARNING, "flwr"), monkeypatch.context() as patch:
        patch.setattr(logging.getLogger("flwr"), "propagate", True)
        ordered = OrderedGrid(grid, 2)
    [record] = [r for r in caplog.records if "deadline" in r.message]
    assert re.match(sentence, record.message)
    messages = [Message(RecordDict(), node, "query") for node in ordered.get_node_ids()]
    assert len(list(ordered.send_and_receive(messages, timeout=5.0))) == 2


@pytest.mark.parametrize("name", ["pseudo_rand_gen", "combine_shares", "Stage"])
def test_without_its_parts_flowers_secure_aggregation_is_not_recorded(name, tmp_path, monkeypatch):
    sentence = without(monkeypatch, SECAGG, name)
    with pytest.raises(MissingPiece, match=sentence):
        SecAggPlusRecording(grid_of(1, number), tmp_path, names=["w"])
    config = small_config(federation={"rounds": 1, "clients": 2, "secure_aggregation": True})
    assert api.run(config.model_copy(update={"attack": ()}), tmp_path / "run").metrics().num_rows


@pytest.mark.parametrize(
    ("pieces", "name", "command"),
    [
        (LINK, "get_middleware", ["superlink", "--nodes", "."]),
        (KEYS, "create_node", ["superlink", "--nodes", "."]),
        (BUNDLES, "pull", ["supernode", "--code", "own"]),
        (BUNDLES, "verify", ["supernode", "--code", "own"]),
        (NODE, "flower_supernode", ["supernode", "--code", "any"]),
    ],
)
def test_a_door_that_cannot_be_shut_is_not_opened(pieces, name, command, monkeypatch):
    for started in ((LINK, "flower_superlink"), (NODE, "flower_supernode")):
        path = started[0].paths[started[1]].replace(":", ".")
        monkeypatch.setattr(path, lambda: pytest.fail("started"))
    sentence = without(monkeypatch, pieces, name)
    monkeypatch.setattr(sys, "argv", ["doors", *command])
    with pytest.raises(SystemExit, match=sentence):
        doors.main()
