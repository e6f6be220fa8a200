import dataclasses
import subprocess
import sys

import pytest
import torch

from clients.operator import Refused, operator
from clients.respond import COINS, respond
from clients.site import site
from clients.task import Task
from fedsim import models
from fedsim.config import to_json
from fedsim.data import federate
from tests.builders import same_params, small_config

NOISE = [{"name": "clip", "bound": 0.125}, {"name": "gaussian", "std": 0.01}]


def task_of(config=None, *, client=0, **given):
    config = config or small_config()
    federated = federate(config)
    model = models.build(config.model, federated.dataset.form, seed=config.seed)
    node = operator({"partition-id": client}, simulated=True)
    sent = {name: value.clone() for name, value in model.state_dict().items()}
    return Task(site=site(to_json(config), node), operator=node, sent=sent, **{"round": 1, **given})


def test_flower_is_not_imported():
    code = "import clients.respond, sys; sys.exit('flwr' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_equal_tasks_give_equal_responses_and_what_was_sent_stays():
    task = task_of(small_config(defense=NOISE), with_truth=True)
    before = {name: value.clone() for name, value in task.sent.items()}
    first, second = respond(task), respond(task)
    assert same_params(first.upload, second.upload)
    assert same_params(first.truth, second.truth)
    assert first.fidelity == second.fidelity
    assert first.num_examples == second.num_examples
    assert same_params(before, task.sent)


def test_a_reused_model_gives_the_uploads_of_new_ones():
    first, second = task_of(), task_of(client=1)
    assert first.site.reused is not None
    uploads = [respond(task).upload for task in (first, second, first)]
    new = dataclasses.replace(first.site)
    vars(new)["reused"] = None
    alone = [respond(dataclasses.replace(it, site=new)).upload for it in (first, second, first)]
    assert all(same_params(*pair) for pair in zip(uploads, alone, strict=True))
    assert task_of(small_config(defense=[{"name": "dp-sgd"}])).site.reused is None


def test_another_round_and_another_client_give_other_uploads():
    task = task_of()
    first = respond(task).upload
    assert not same_params(first, respond(dataclasses.replace(task, round=2)).upload)
    assert not same_params(first, respond(task_of(client=1)).upload)


def test_the_truth_is_there_only_if_asked_for_and_changes_nothing():
    task = task_of(small_config(defense=[{"name": "dp-sgd"}]))
    silent, told = respond(task), respond(dataclasses.replace(task, with_truth=True))
    assert not silent.truth
    assert not silent.fidelity
    assert set(told.truth) == {"labels", "indices"}
    assert set(told.fidelity) == {"update_cosine", "update_snr_db", "upload_bytes"}
    assert same_params(silent.upload, told.upload)


def test_what_defenses_remember_comes_back_in_the_next_task():
    config = small_config(defense=[{"name": "dp-sgd", "max_epsilon": 50.0}])
    task = task_of(config)
    memory = respond(task).memory
    assert memory
    later = respond(dataclasses.replace(task, round=2, memory=memory)).memory
    assert not same_params(memory, later)


def test_a_spent_budget_is_refused():
    with pytest.raises(Refused, match="privacy budget spent"):
        respond(task_of(small_config(defense=[{"name": "dp-sgd", "max_epsilon": 1e-9}])))


def test_coins_are_kept_from_task_to_task():
    config = small_config(defense=NOISE, audit={"clients": 2})
    task = task_of(config, with_truth=True)
    coins = respond(task).coins
    assert coins.dtype == torch.bool
    other = respond(dataclasses.replace(task, coins=~coins))
    assert torch.equal(other.coins, ~coins)
    assert torch.equal(other.truth[COINS], (~coins).to(torch.uint8))
    assert respond(task_of(config, client=3)).coins is None
