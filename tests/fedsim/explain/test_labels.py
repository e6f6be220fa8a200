import pytest

from adversary.attacks import ATTACKS
from fedsim import models
from fedsim.config import Model
from fedsim.core.form import Form
from fedsim.core.types import LocalTraining
from fedsim.explain.labels import readers_of

HEADS = [n for n, attack in ATTACKS.items() if attack.reads == "head" and attack.family == "label"]
WHOLES = [name for name, attack in ATTACKS.items() if attack.reads == "update"]


@pytest.mark.parametrize(
    ("model", "sentences"),
    [
        ("mlp", [f"{', '.join([*HEADS, *WHOLES])} read head.weight"]),
        (
            "tests.binary:OneLogit",
            [
                f"{', '.join(HEADS)} read head.weight",
                f"{', '.join(WHOLES)} read all that is uploaded",
            ],
        ),
        (
            "tests.binary:Halved",
            [
                f"{', '.join(WHOLES)} read all that is uploaded",
                f"{', '.join(HEADS)} refuse: model: must end in a linear layer of 2 outputs that "
                "are its logits, got none",
            ],
        ),
    ],
)
def test_which_part_of_an_update_label_attacks_read(model, sentences):
    built = models.build(Model(name=model), Form((8,), 2), seed=0)
    assert readers_of(built, (8,), 2, LocalTraining(0.1, 16)) == sentences
