"""Attacks in processes of their own: the same rows, and nothing lost where one dies."""

import os

import pytest
import torch

from adversary.attack import Attack
from fedsim import api
from fedsim.core.errors import RunStopped
from fedsim.run.run_folder import RunFolder
from tests.builders import rows_without_seconds, same_params, small_config
from tests.recordings import forge_config

pytestmark = [pytest.mark.usefixtures("undrawn"), pytest.mark.twin]

ATTACKS = ["llg", "eb-gls-rounds", "random"]


def slow_config(attackers, *, attack=ATTACKS, rounds=4):
    return small_config(
        federation={"rounds": rounds, "strategy": "fedadam"}, attack=attack,
        engine={"attackers": attackers},
    )  # fmt: skip


def outcome(run):
    folder = RunFolder(run.path)
    guesses = {
        f"{n} {k}": v for n in folder.finished_rounds[1:] for k, v in folder.guesses(n).items()
    }
    return folder.final_params(), rows_without_seconds(folder.ledger()), guesses


def dies(view, auxiliary, generator, *, parent: int = 0):
    """Die in the third round, but not in the process that is told."""
    if view.latest.update.round == 3 and os.getpid() != parent:
        os._exit(9)
    return torch.bincount(torch.zeros(1, dtype=torch.long), minlength=auxiliary.num_classes)


DIES = Attack(name="dies", family="label", infer=dies, has_twin=False)


def test_rounds_attacked_beside_training_have_the_same_rows_and_answers(tmp_path):
    plain = outcome(api.run(slow_config(0), tmp_path / "plain"))
    beside = outcome(api.run(slow_config(1), tmp_path / "beside"))
    assert same_params(plain[0], beside[0])
    assert plain[1] == beside[1]
    assert same_params(plain[2], beside[2])
    assert len(plain[1]) > 4 * 4 * 3


def test_a_process_that_dies_ends_the_run_and_what_is_finished_stays(tmp_path):
    attack = [{"name": "tests.fedsim.federation.test_attack_pool:DIES", "parent": os.getpid()}]
    expected = outcome(api.run(slow_config(0, attack=attack), tmp_path / "plain"))
    with pytest.raises(RunStopped, match="round 3: attacks must finish"):
        api.run(slow_config(1, attack=attack), tmp_path / "dead")
    folder = RunFolder(tmp_path / "dead")
    assert folder.finished_rounds == [0, 1, 2]
    forge_config(folder.path, slow_config(0, attack=attack))
    resumed = outcome(api.resume(folder.path, allow=["tests.fedsim.federation.test_attack_pool"]))
    assert same_params(resumed[0], expected[0])
    assert resumed[1] == expected[1]
