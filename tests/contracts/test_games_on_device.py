"""Games and `explain` on an accelerator, whose memory bounds what is computed at a time."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from adversary.attacks import ATTACKS
from adversary.games import predictors
from adversary.games.gradients import PARAMETERS, entries_at_once
from adversary.inversion import matching
from adversary.inversion.problems import problem_of
from adversary.local_training import drawn, grouping
from fedsim import config as configs
from fedsim import explain
from fedsim.config import Cell
from fedsim.conformance import board
from fedsim.core import devices
from fedsim.core.devices import CPU, moved, on
from fedsim.core.form import Form
from fedsim.core.rehearsals import Rehearsals
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, LocalTraining
from fedsim.games import table
from fedsim.models.fitting import fitting
from tests.accelerator import DEVICE, accelerator

GAME = [
    *('game.play=["membership"]', "game.trials=60", "game.shadows=80", "game.steps=3"),
    *("game.batch_size=[4]", "game.rounds=[1]"),
]


@pytest.fixture(autouse=True)
def has_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let settings name the accelerator of these tests cuda."""
    monkeypatch.setitem(devices.NAMES, "cuda", DEVICE)
    monkeypatch.setattr(devices, "offered", lambda: ("cuda",))
    monkeypatch.setattr(predictors, "TREES", 5)


def where(device: str) -> Any:
    """Return the accelerator, or nothing for the CPU."""
    return nullcontext() if device == "cpu" else accelerator()


@pytest.mark.parametrize(
    "more",
    [
        [],
        pytest.param(
            ['defense=[{name="clip",bound=1.0},{name="gaussian",std=0.1}]'], marks=pytest.mark.slow
        ),
        [
            *('engine.name="batched"', "federation.strategy=fedavg", "local.batch_size=2"),
            "engine.batch=16",
        ],
    ],
    ids=["gradients", "defended", "trained together"],
)
def test_games_are_played_there_to_the_bit(more: list[str], tmp_path: Path) -> None:
    def rows(device: str) -> list[dict[str, Any]]:
        config = configs.read(None, [*GAME, *more, f"engine.device={device}"])
        with where(device):
            played = table.games([Cell("game", config)], tmp_path / device).to_pylist()
        return [{name: value for name, value in row.items() if name != "seconds"} for row in played]

    assert repr(rows("cuda")) == repr(rows("cpu"))


def test_a_model_is_explained_there() -> None:
    def explained(device: str) -> explain.Explanation:
        config = configs.read(None, ["model=mlp", f"engine.device={device}"])
        with where(device):
            return explain.explain(config, (1, 6, 6), 4, LocalTraining(0.1, 1))

    there, here = explained("auto"), explained("cpu")
    assert there.spectrum is not None
    assert here.spectrum is not None
    assert there.spectrum.singular.device == CPU
    torch.testing.assert_close(there.spectrum.singular, here.spectrum.singular, rtol=1e-9, atol=0)
    assert there.verdict == here.verdict
    assert there.systems == here.systems


def test_texts_are_explained_there() -> None:
    def explained(device: str) -> dict[str, Any]:
        config = configs.read(None, ["model=gpt", "model.width=16", f"engine.device={device}"])
        with where(device):
            return explain.explain_texts(config, 6, 40, LocalTraining(0.1, 2)).summary()

    assert explained("cuda") == explained("cpu")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the accelerator have so many bytes free."""

    def free(num_bytes: int) -> None:
        monkeypatch.setattr(devices, "free_memory", {DEVICE: num_bytes, CPU: None}.get)

    return free


def test_as_many_clients_are_rehearsed_together_as_fit(memory: Any) -> None:
    knows = Auxiliary(board.MODEL, board.NUM_CLASSES, device=DEVICE)
    local = LocalTraining(0.1, 4)
    inputs, labels = board.CANDIDATES.inputs[:8], board.CANDIDATES.labels[:8]
    client = drawn(local, inputs, labels, generator(0), None)
    sizes = []
    for num_bytes in (10, 10**6):
        memory(num_bytes)
        fresh = replace(knows, rehearsals=Rehearsals(1000))
        sizes.append(grouping(local, fresh, client, None).size)
    assert sizes == [1, fitting(board.MODEL, Form((4,), board.NUM_CLASSES), 4, 10**6)]
    assert 1 < sizes[1] < 1000


def test_as_many_restarts_are_computed_at_a_time_as_fit(memory: Any) -> None:
    seen = board.picture(0).latest
    problem = problem_of(seen, board.KNOWS)
    assert matching._at_once(problem) == matching.ENTRIES // problem.observed.shape[1]
    with accelerator(), on(DEVICE):
        there = problem_of(moved(seen, DEVICE), moved(board.KNOWS, DEVICE))
        memory(10)
        assert matching._at_once(there) == 1
        memory(10**7)
        assert 1 < matching._at_once(there) < 1000
    assert ATTACKS["dlg"].cost is not None
    costs = [
        ATTACKS["dlg"].cost(replace(board.KNOWS, device=device), 1, {"restarts": 9})
        for device in (CPU, DEVICE)
    ]
    assert costs[0] is not None
    assert costs[1] is not None
    assert costs[1].num_bytes < costs[0].num_bytes


def test_as_many_shadow_gradients_are_held_as_fit(memory: Any) -> None:
    memory(64 * 4 * 100)
    assert entries_at_once() == PARAMETERS
    with accelerator(), on(DEVICE):
        assert entries_at_once() == 400
