import pytest
import torch

from adversary.grading import selection
from fedsim import api
from fedsim.config import Part
from fedsim.core.errors import ConfigError
from fedsim.core.ground_truth import Truth
from fedsim.run.prepare import prepare
from fedsim.run.truth import with_usage
from fedsim.run.usage_sets import SHARES, draw_sets
from tests.builders import small_config

CONFIG = {"attack": "duci", "data": {"limit": 400}, "auxiliary": {"set_size": 8}}


def test_each_client_has_a_set_of_its_own_rows_and_test_rows_of_their_labels():
    plan = prepare(small_config(**CONFIG))
    dataset, asked = plan.federated.dataset, plan.sets
    shares = set()
    for place, mine in enumerate(plan.federated.clients):
        rows, records = asked.rows[str(place)], asked.sets.rows[str(place)]
        assert len(rows) == len(records) == 8
        used = rows[rows >= 0]
        assert bool(torch.isin(used, mine).all())
        assert torch.equal(asked.sets.inputs[records[: len(used)]], dataset.inputs[used])
        labels = asked.sets.labels[records]
        assert bool(torch.isin(labels, dataset.labels[mine]).all())
        shares.add(len(used) / 8)
    assert shares <= set(SHARES)
    spread = torch.cat(list(asked.sets.rows.values()))
    assert torch.equal(spread.sort().values, torch.arange(len(asked.sets.labels)))


@pytest.mark.parametrize("strategy", ["fedavg", "fedsgd"])
def test_what_is_expected_is_what_is_used_on_average(strategy):
    config = small_config(**CONFIG, federation={"strategy": strategy})
    plan = prepare(config)
    local = config.local_training()
    expected, used = 0.0, 0.0
    for seed in range(40):
        asked = draw_sets(plan.federated, 8, local, seed)
        for place, mine in enumerate(plan.federated.clients):
            share = min(1.0, local.batch_size / len(mine)) if strategy == "fedsgd" else 1.0
            used += share * int((asked.rows[str(place)] >= 0).sum())
            expected += asked.sets.expected[str(place)]
    assert used / expected == pytest.approx(1.0, abs=0.2)


def test_the_truth_is_of_the_rows_that_were_used():
    plan = prepare(small_config(**CONFIG))
    client = next(name for name, rows in plan.sets.rows.items() if int((rows >= 0).sum()) > 1)
    rows = plan.sets.rows[client]
    first = rows[rows >= 0][:1]
    truth = with_usage(plan, client, Truth(plan.federated.dataset.labels[first], first))
    assert truth.in_set.tolist() == (rows == first).tolist()
    assert with_usage(plan, "none", truth) is truth


def test_without_sets_the_attack_is_refused_by_name():
    plan = prepare(small_config(attack="llg"))
    assert plan.sets is None
    with pytest.raises(ConfigError, match="attack.duci: needs auxiliary sets, got none"):
        selection.build([Part(name="duci")], plan.auxiliary)


def test_a_run_grades_numbers(tmp_path, undrawn):
    config = small_config(**CONFIG, federation={"rounds": 1})
    rows = api.means(api.run(config, tmp_path / "run").ledger())
    assert {row["metric"] for row in rows} == {"absolute_accuracy", "relative_accuracy"}
