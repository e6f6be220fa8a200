import pytest
import torch

from adversary.attack import Attack
from adversary.grading import answers, selection
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from tests.builders import auxiliary_of, bilinear, observe, plain_gradient

MODEL = bilinear(3)
AUXILIARY = auxiliary_of(MODEL, 3)


def built(**options):
    part = Part.model_validate({"name": "llg", "scale": "exact", **options})
    return selection.build([part], AUXILIARY)


def asked(attacks, round_, client):
    gradient = plain_gradient(MODEL, torch.rand(2, 4), torch.tensor([0, 1]))
    view = observe(gradient, 2, round_=round_, client=client)
    return len(answers.attack_view(view, attacks, AUXILIARY, seed=0))


@pytest.mark.parametrize(
    ("options", "rounds", "clients"),
    [
        ({}, [1, 2, 3, 4, 5, 6], ["0", "1", "10"]),
        ({"every": 2}, [1, 3, 5], ["0", "1", "10"]),
        ({"every": 5, "clients": ["0", "10"]}, [1, 6], ["0", "10"]),
        ({"clients": "1, 10"}, [1, 2, 3, 4, 5, 6], ["1", "10"]),
        ({"clients": 1}, [1, 2, 3, 4, 5, 6], ["1"]),
    ],
)
def test_an_attack_is_made_when_it_is_due_on_the_clients_it_is_for(options, rounds, clients):
    attacks = built(**options)
    made = {
        (round_, client)
        for round_ in range(1, 7) for client in ("0", "1", "10")
        if asked(attacks, round_, client)
    }  # fmt: skip
    assert made == {(round_, client) for round_ in rounds for client in clients}
    assert attacks[0].infer.keywords == {"scale": "exact"}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"every": 0}, r"attack\.llg\.every: must be a whole number of at least 1, got 0$"),
        ({"every": 1.5}, r"attack\.llg\.every: must be a whole number of at least 1, got 1\.5$"),
        ({"every": True}, r"attack\.llg\.every: must be a whole number of at least 1, got True$"),
        ({"clients": []}, r"attack\.llg\.clients: must be a list of clients' names, got \[\]$"),
        ({"clients": [[1]]}, r"attack\.llg\.clients: must be a list of clients' names, got"),
        ({"memory": 0}, r"attack\.llg\.memory: must be a number of GB above 0, got 0$"),
        ({"memory": "1 GB"}, r"attack\.llg\.memory: must be a number of GB above 0, got '1 GB'$"),
        ({"evry": 2}, r"attack\.llg\.evry: must be a known key"),
    ],
)
def test_a_wrong_schedule_is_one_sentence(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        built(**options)


def test_memory_is_given_in_gb():
    assert built(memory=1.5)[0].memory == 1.5e9
    assert built()[0].memory is None


def own(view, auxiliary, generator, *, every: int = 3):
    return torch.zeros(3)


clashing = Attack(name="clashing", family="label", infer=own)


def test_an_attack_with_such_an_option_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"every: must not be an option of the attack's own"):
        selection.build([Part(name="tests.adversary.test_schedule:clashing")], AUXILIARY)
