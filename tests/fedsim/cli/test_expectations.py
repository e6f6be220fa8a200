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


@pytest.mark.parametrize(("share", "few"), [(0.1, True), (0.5, False)])
def test_a_run_says_which_attacks_estimate_classes_from_few_examples(share, few):
    plan = prepare(
        small_config(
            data={"limit": 400}, attack=["llg", "eb-gls", "rlu"], auxiliary={"share": share}
        )
    )
    sentences = [it for it in expectations(plan) if it.startswith("auxiliary")]
    expected = "auxiliary: 40 examples of 10 classes are few for eb-gls, rlu; with fewer than 13"
    assert len(sentences) == few
    assert all(it.startswith(expected) for it in sentences)


def test_auxiliary_examples_that_no_attack_on_labels_uses_are_never_few():
    plan = prepare(small_config(data={"limit": 200}, attack=["llg", "uniform"]))
    assert not [it for it in expectations(plan) if it.startswith("auxiliary")]
