import pytest
import torch

from fedsim.core.errors import ConfigError
from fedsim.data import federate
from tests.builders import small_config

SIZE = {"name": "messages", "limit": 60, "canary": "pin ###"}


def dealt(**options):
    config = small_config(data={**SIZE, **options}, model={"name": "gpt", "width": 16})
    return federate(config)


def test_one_of_many_texts_stands_in_the_place_of_a_text_of_client_0():
    federated = dealt()
    canary = federated.canary
    assert canary.row == int(federated.clients[0][0])
    assert torch.equal(federated.dataset.inputs[canary.row], canary.inputs[canary.place])
    assert torch.equal(federated.dataset.targets[canary.row], canary.targets[canary.place])
    assert len(canary.inputs) == len(canary.inputs.unique(dim=0)) == 512
    said = federated.dataset.vocabulary.text(canary.inputs[canary.place].tolist())
    assert said.startswith("pin ")
    assert said[4:].isdigit()
    without = dealt(canary="").dataset
    rows = torch.arange(len(without.inputs)) != canary.row
    assert torch.equal(without.inputs[rows], federated.dataset.inputs[rows])


def test_few_digits_have_few_texts_and_many_are_drawn():
    assert len(dealt(canary="pin #").canary.inputs) == 10
    assert len(dealt(canary="pin #########").canary.inputs) > 500


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"canary": "no digits"}, "must have 1 to 9 digits #, got 0"),
        ({"canary": "#" * 10}, "must have 1 to 9 digits #, got 10"),
        ({"canary": "many words " * 30 + "#"}, "must fit in"),
    ],
)
def test_a_canary_that_cannot_be_is_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        dealt(**options)


def test_other_data_have_no_canary():
    with pytest.raises(ConfigError, match="must go with texts and next tokens"):
        federate(small_config(data={"canary": "pin #"}))
