import pytest

from fedsim.cli.expectations import expectations
from fedsim.run.prepare import prepare
from tests.builders import small_config

REST = "an update as a sum of gradients, which AdamW does not make; a value near the blind guess"


@pytest.mark.parametrize(
    ("attacks", "sentences"),
    [
        (["llg"], [f"local.optimizer: llg reads {REST} shows no protection"]),
        (["llg", "idlg"], [f"local.optimizer: llg, idlg read {REST} shows no protection"]),
        (["uniform"], []),
    ],
)
def test_a_run_says_which_attacks_read_what_adam_does_not_make(attacks, sentences):
    plan = prepare(small_config(attack=attacks, local={"optimizer": "adamw", "lr": 0.01}))
    assert [it for it in expectations(plan) if it.startswith("local.optimizer")] == sentences


def test_nothing_is_said_of_sgd():
    assert not [it for it in expectations(prepare(small_config())) if "optimizer" in it]
