"""The model of a game is trained under the defense, and shadows are as the client's uploads are."""

from typing import Any

import pytest
import torch

from adversary.games.predictors import VALIDATION
from adversary.games.stand_ins import fitting
from fedsim import config as configs
from fedsim.core.errors import RunStopped
from fedsim.games import pools as games_pools
from fedsim.games import table as games
from fedsim.games.board import prepare
from tests.builders import same_params

SETTINGS = [
    "data=tests.adversary.attacks.test_shadow_inference:two_kinds", "model=mlp", "model.hidden=8",
    "model.bottleneck=4", "auxiliary.share=0.5", "game.column=kind", "game.value=1",
    "game.trials=40", "game.shadows=40", "game.steps=20", "game.batch_size=2", "local.lr=0.1",
    "game.play=membership",
]  # fmt: skip


def cells(*more):
    return configs.cells(None, [*SETTINGS, *more])


def board(*more):
    return prepare(cells(*more)[0].config)


def uploads(board):
    inputs, labels = board.private.inputs[:6].view(3, 2, -1), board.private.labels[:6].view(3, 2)
    client = board.client(2)
    return client.uploads(board.states[0], inputs, labels, coins="", defense=True)


def test_the_price_of_information_trains_the_model():
    free, dear = (
        board(f'defense=[{{name="vib",beta={beta}}}]', "local.lr=0.002") for beta in (0.0, 100.0)
    )
    assert not same_params(free.states[0], dear.states[0])
    assert not torch.allclose(uploads(free), uploads(dear))
    names = [name for name in free.states[0] if "log_variance" in name]
    assert names
    for name in names:  # nothing pulls the blur of a model that pays nothing towards 1
        assert float(dear.states[0][name].norm()) < float(free.states[0][name].norm())


def test_beta_is_in_the_upload_at_the_same_weights():
    boards = [board(f'defense=[{{name="vib",beta={beta}}}]', "game.steps=0") for beta in (0.0, 1.0)]
    assert same_params(boards[0].states[0], boards[1].states[0])
    assert not torch.allclose(*(uploads(each) for each in boards))


@pytest.mark.parametrize("defense", ["[]", '[{name="vib",beta=0.1}]'])
def test_games_with_a_bottleneck_repeat_themselves(defense, tmp_path):
    before, tables = torch.get_rng_state(), []
    for name in ("one", "two"):
        held = torch.get_rng_state()
        table = games.games(cells(f"defense={defense}"), tmp_path / name)
        assert torch.equal(torch.get_rng_state(), held)
        tables.append(table.drop_columns("seconds"))
    assert tables[0].equals(tables[1])
    torch.set_rng_state(before)


def test_a_defense_on_uploads_is_on_the_uploads_that_train():
    plain, signed = board(), board("defense=sign", "game.steps=1")
    first = board("game.steps=0")
    step = {n: signed.states[0][n] - first.states[0][n] for n in first.states[0]}
    assert not same_params(plain.states[0], signed.states[0])
    for name, value in step.items():
        if "log_variance" not in name:
            sizes = value.abs().flatten()
            torch.testing.assert_close(sizes, sizes[:1].expand_as(sizes), rtol=1e-3, atol=1e-6)


def test_task_accuracy_is_of_the_model_that_uploads():
    its = board()
    dataset = games_pools.federated_records(its.config).dataset
    model = its.learner.model.eval()
    model.load_state_dict(dict(its.states[0]))
    right = model(dataset.test_inputs).argmax(dim=1) == dataset.test_labels
    assert its.accuracies == (float(right.double().mean()),)


def test_a_model_that_diverges_stops_the_game():
    sentence = "local.lr: must keep the model's weights finite while it trains, got 0.1"
    with pytest.raises(RunStopped, match=sentence):
        board('defense=[{name="vib",beta=1e6}]')


def test_a_defender_s_records_are_in_none_of_its_trials_and_no_adversary_has_them():
    plain, perturbed = board(), board('defense=[{name="perturb",strength=0.5}]')
    own, private, auxiliary = map(
        as_set,
        (surrogate(perturbed.learner).marked, perturbed.private, perturbed.auxiliary),
    )
    assert len(own | private | auxiliary) == sum(map(len, (own, private, auxiliary)))
    assert len(own) + len(private) == len(plain.private.labels)
    aside = [as_set(surrogate(one.learner).marked) for one in perturbed.stand_ins]
    assert len(aside) == games_pools.STAND_INS == len(set(map(frozenset, aside)))
    for theirs, one in zip(aside, perturbed.stand_ins, strict=True):
        assert theirs | as_set(one.pool) == auxiliary
        assert not theirs & as_set(one.pool)
    fitted = fitting(games_pools.STAND_INS, 1 - VALIDATION)
    learned, chosen = (set().union(*part) for part in (aside[:fitted], aside[fitted:]))
    assert not learned & chosen  # predictors are chosen on defenses of other records
    assert all(len(theirs) == len(own) for theirs in aside[fitted:])
    one = [side.uploads(*case, coins="", defense=True) for side, case in (
        (perturbed.client(1), single(perturbed)),
        (perturbed.rehearsed(1)[0].learner, single(perturbed)),
        (plain.client(1), single(perturbed)),
    )]  # fmt: skip
    assert not torch.allclose(one[0], one[2])  # a gradient of one example is moved
    assert not torch.allclose(one[0], one[1])  # and whoever rehearses it moves it otherwise


def as_set(records):
    return {tuple(row) for row in records.inputs.tolist()}


def surrogate(learner):
    hook: Any = learner.auxiliary.defense.gradient
    return hook.keywords["surrogate"]


def single(of):
    return of.states[0], of.private.inputs[:4, None], of.private.labels[:4, None]
