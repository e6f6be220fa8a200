"""Whole runs with odd models of users: what is claimed, what stays as it was, what repeats."""

import pytest
import torch
from safetensors.torch import load_file

from fedsim import api
from fedsim.config import parse
from fedsim.data import federate
from fedsim.run.prepare import prepare
from tests.builders import same_params

NOISE = [{"name": "clip", "bound": 0.001}, {"name": "gaussian", "std": 0.01}]


def odd_config(name, **tables):
    sections = {
        "model": {"name": f"tests.odd_models:{name}"},
        "data": {"name": "tests.builders:toy_dataset", "alpha": 0.5},
        "federation": {"rounds": 2, "clients": 3},
        "local": {"epochs": 1, "batch_size": 8},
        "attack": [],
    }
    return parse({**sections, **tables})


def metrics_of(run):
    return run.metrics().to_pylist()


def epsilons(run):
    return [row["value"] for row in metrics_of(run) if row["metric"] == "epsilon"]


@pytest.mark.e2e
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("name", "count"), [("Plain", 6), ("Witness", 0)])
def test_no_epsilon_is_written_where_state_moves_by_itself(name, count, tmp_path):
    run = api.run(odd_config(name, defense=NOISE), tmp_path / "run")
    assert len(epsilons(run)) == count


@pytest.mark.e2e
def test_state_that_moves_against_all_expectation_is_not_uploaded(tmp_path):
    with pytest.raises(api.FedsimError, match="must hold no state that training moved .* got seen"):
        api.run(odd_config("LateWitness", defense=NOISE), tmp_path / "run")


@pytest.mark.e2e
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("defense", [[], [{"name": "perturb"}], [{"name": "mixup"}]])
def test_a_forward_that_writes_into_its_input_changes_no_data(defense, tmp_path):
    attacks = [{"name": "update-lira"}, {"name": "cosine-mia"}, {"name": "llg"}]
    config = odd_config(
        "Writer", defense=defense, attack=attacks, auxiliary={"share": 0.3, "candidates": 12}
    )
    dataset = federate(config).dataset
    before = dataset.inputs.clone(), dataset.test_inputs.clone()
    api.run(config, tmp_path / "run")
    assert federate(config).dataset is dataset
    assert torch.equal(dataset.inputs, before[0])
    assert torch.equal(dataset.test_inputs, before[1])


@pytest.mark.e2e
@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("name", ["Dice", "Counter", "lazy", "LateLayers"])
def test_two_equal_runs_in_one_process_are_equal_to_the_bit(name, tmp_path):
    config = odd_config(
        name,
        attack=[{"name": "llg"}, {"name": "cosine-mia"}],
        auxiliary={"share": 0.2, "candidates": 12},
    )
    first, second = (api.run(config, tmp_path / place) for place in ("first", "second"))
    for one, two in zip(metrics_of(first), metrics_of(second), strict=True):
        if "seconds" not in one["metric"]:
            assert one == two
    columns = ["client", "attack", "metric", "value"]
    assert first.ledger().select(columns).equals(second.ledger().select(columns))
    for path in sorted(first.path.glob("rounds/*/*.safetensors")):
        other = second.path / path.relative_to(first.path)
        assert same_params(load_file(path), load_file(other)), path


def test_a_round_that_is_audited_must_not_have_state_that_moves():
    config = odd_config("Witness", defense=NOISE, audit={"clients": 2})
    with pytest.raises(api.ConfigError, match="got seen of clip → gaussian, of which nothing"):
        prepare(config)


def test_batch_norm_with_one_example_left_over_is_refused_before_the_run(tmp_path):
    config = odd_config("Normed", local={"epochs": 1, "batch_size": 18})
    with pytest.raises(api.ConfigError, match="local.batch_size: .* a batch of 1 while training"):
        api.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


DP_SGD = [{"name": "dp-sgd"}]


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "options", "defense"),
    [
        ("Unused", {}, []),
        ("Unused", {}, DP_SGD),
        ("Typed", {"dtype": "float16"}, []),
        ("Typed", {"dtype": "bfloat16"}, []),
        ("Typed", {"dtype": "float64", "mixed": True}, DP_SGD),
        ("Squeezed", {}, DP_SGD),
        ("Attending", {}, []),
        ("Tokens", {}, DP_SGD),
        ("Tokens", {"sparse": True}, NOISE),
        ("Tokens", {"attend": True}, []),
    ],
)
def test_odd_models_are_trained_and_attacked(name, options, defense, tmp_path):
    dataset = "token_dataset" if name == "Tokens" else "toy_dataset"
    config = odd_config(
        name,
        model={"name": f"tests.odd_models:{name}", **options},
        data={"name": f"tests.builders:{dataset}", "partition": "iid"},
        federation={"rounds": 1, "clients": 2},
        attack=[{"name": "llg"}, {"name": "cosine-mia"}],
        auxiliary={"share": 0.2, "candidates": 8, "knows_defense": False},
        defense=defense,
    )
    run = api.run(config, tmp_path / "run")
    assert not [row for row in metrics_of(run) if "failed" in row["metric"]]
    assert len(epsilons(run)) == (2 if defense else 0)


@pytest.mark.parametrize("defense", [DP_SGD, NOISE])
def test_coarse_numbers_carry_no_epsilon(defense):
    config = odd_config("Typed", defense=defense, local={"batch_size": 4})
    with pytest.raises(api.ConfigError, match="must have parameters of float32 or finer"):
        prepare(config)
