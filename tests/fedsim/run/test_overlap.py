from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim import api, config, data
from fedsim.core.errors import ConfigError
from fedsim.core.rng import generator
from fedsim.data import Dataset, Federated
from fedsim.data.adult import adult as read_adult
from fedsim.data.digits import digits
from fedsim.games import board as game_board
from fedsim.run import overlap
from fedsim.run.overlap import REACH, measure, neighbours
from tests import real_data
from tests.builders import small_config

pytestmark = pytest.mark.usefixtures("undrawn")

DIGITS = digits(real_data.SHARED)


def jitter(rows, share):
    """Return rows with noise of a share of each row's standard deviation."""
    spread = rows.flatten(1).std(dim=1).view(-1, *[1] * (rows.ndim - 1))
    stream = generator(0, "jitter")
    return rows + share * spread * torch.randn(rows.shape, generator=stream)


COPIES = {
    "exact": lambda rows: rows,
    "darker": lambda rows: 0.5 * rows,
    "larger": lambda rows: 2.0 * rows,
    "1 %": lambda rows: jitter(rows, 0.01),
    "2 %": lambda rows: jitter(rows, 0.02),
    "5 %": lambda rows: jitter(rows, 0.05),
}
SHIFTED = {
    "brighter": lambda rows: rows + 0.3,
    "all three": lambda rows: jitter(0.7 * rows + 0.2, 0.02),
    "bytes": lambda rows: (rows * 0.6 * 255).round() / 255,
}


def check(federated, run):
    overlap.check(federated, allowed=run.auxiliary.overlap, seed=run.seed)


def planted(dataset, count, make=lambda rows: rows):
    """Return a federation whose first auxiliary rows are copies of as many private rows."""
    order = torch.randperm(len(dataset.labels), generator=generator(0, "planted"))
    held_out = len(order) // 10
    auxiliary, private = order[:held_out], order[held_out:]
    inputs = dataset.inputs.clone()
    if count:
        inputs[auxiliary[:count]] = make(inputs[private[:count]])
    return Federated(replace(dataset, inputs=inputs), tuple(private.chunk(4)), auxiliary)


@lru_cache(maxsize=1)
def adult(*, without=""):
    folder = real_data.SHARED / "adult"
    if not folder.exists():
        pytest.skip(f"no adult in {real_data.SHARED}")
    return read_adult(folder, without=without)


@pytest.mark.parametrize("kind", [*COPIES, *SHIFTED])
def test_copies_of_digits_are_counted_and_refused(kind):
    federated = planted(DIGITS, 20, {**COPIES, **SHIFTED}[kind])
    found = measure(federated, federated.auxiliary)
    assert (found.rows, found.total, found.surplus) == (20, 143, 20)
    with pytest.raises(ConfigError, match=r"^auxiliary: must .* got 20 of 143 rows that repeat"):
        check(federated, small_config())
    check(federated, small_config(auxiliary={"overlap": 0.2}))


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_natural_digits_pass_even_where_none_may_be_a_copy(share):
    for seed in range(3):
        told = small_config(seed=seed, data={}, auxiliary={"share": share, "overlap": 0.0})
        check(data.federate(told), told)


def test_one_copy_is_refused_where_none_is_allowed():
    federated = planted(DIGITS, 1, COPIES["5 %"])
    check(federated, small_config())
    with pytest.raises(ConfigError, match="got 1 of 143 rows"):
        check(federated, small_config(auxiliary={"overlap": 0.0}))


def test_nobody_without_auxiliary_data_is_looked_at(monkeypatch):
    monkeypatch.setattr(overlap, "measure", lambda *_: pytest.fail("there is nothing to measure"))
    told = small_config(auxiliary={"share": 0.0})
    check(data.federate(told), told)


@pytest.mark.parametrize(
    "kind", ["5 %", *(pytest.param(k, marks=pytest.mark.slow) for k in COPIES if k != "5 %")]
)
def test_copies_of_census_records_are_refused_and_natural_twins_are_not(kind):
    plain = planted(adult(), 0)
    check(plain, small_config())
    count = 1000  # 5 % of noise hides it among natural neighbours until these are a third
    federated = planted(adult(), count, COPIES[kind])
    found = measure(federated, federated.auxiliary)
    rest = measure_at(plain, plain.auxiliary[count:], found.distance)
    assert found.rows == count + rest
    with pytest.raises(ConfigError, match=f"got {found.rows} of 3016 rows that repeat"):
        check(federated, small_config())


def measure_at(federated, auxiliary, distance):
    """Return how many rows have a private row within a distance."""
    inputs = federated.dataset.inputs
    near = sum(neighbours(inputs[rows], inputs[auxiliary]) for rows in federated.clients)
    return int((near[:, REACH.index(distance)] > 0).sum())


def test_census_records_without_their_weight_coincide_and_are_refused():
    plain = planted(adult(without="fnlwgt"), 0)
    with pytest.raises(ConfigError, match=r"of 3016 rows .* 0.4% noise"):
        check(plain, small_config())
    check(plain, small_config(auxiliary={"overlap": 0.3}))


def test_blocks_and_the_slow_way_give_the_same_counts():
    private, auxiliary = DIGITS.inputs[:500], jitter(DIGITS.inputs[400:600], 0.05)
    rows = [
        torch.nn.functional.normalize(x.flatten(1).double() - x.mean(dim=(1, 2, 3))[:, None])
        for x in (auxiliary, private)
    ]
    apart = torch.cdist(*rows, compute_mode="donot_use_mm_for_euclid_dist")
    slow = torch.stack([(apart <= reach).sum(dim=1) for reach in REACH], dim=1)
    for cells in (1, 1000, 1 << 22):
        assert torch.equal(neighbours(private, auxiliary, cells=cells), slow)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 40))
def test_the_order_of_the_rows_does_not_matter(seed, count):
    federated = planted(DIGITS, count, COPIES["2 %"])
    stream = generator(seed, "order")
    found = measure(federated, federated.auxiliary)
    private = torch.cat(federated.clients)
    private = private[torch.randperm(len(private), generator=stream)]
    auxiliary = federated.auxiliary[torch.randperm(143, generator=stream)]
    again = replace(federated, clients=tuple(private.chunk(7)), auxiliary=auxiliary)
    assert measure(again, auxiliary) == found
    assert found.rows == count


@settings(max_examples=20)
@given(st.sampled_from([1, 3, 4, 7, 8, 12]), st.integers(0, 1000))
def test_natural_rows_of_few_dimensions_are_not_refused(features, seed):
    inputs = torch.randn(1500, features, generator=generator(seed, "natural"))
    labels = torch.zeros(1500, dtype=torch.int64)
    dataset = Dataset(
        inputs=inputs, labels=labels, test_inputs=inputs, test_labels=labels, num_classes=2
    )
    check(planted(dataset, 0), small_config())


def test_rows_without_contrast_are_no_copies_of_each_other():
    flat = torch.rand(50, 1, 1, 1, generator=generator(0, "flat")).expand(50, 1, 8, 8)
    assert neighbours(flat, flat).sum() == 0


def test_many_rows_are_drawn_first_and_counted_where_these_repeat(monkeypatch):
    monkeypatch.setattr(overlap, "DRAWN", 60)
    looked_at = []
    found = overlap.measure

    def counted(federated, auxiliary):
        looked_at.append(len(auxiliary))
        return found(federated, auxiliary)

    monkeypatch.setattr(overlap, "measure", counted)
    check(planted(DIGITS, 0), small_config())
    assert looked_at == [60]
    with pytest.raises(ConfigError, match="got 100 of 143"):
        check(planted(DIGITS, 100), small_config())
    assert looked_at == [60, 60, 143]


def doubled(root):
    """Return digits of which every one stands there twice: once darker and with noise."""
    half = DIGITS.inputs[:400]
    inputs = torch.cat([half, jitter(0.6 * half + 0.1, 0.03)])
    labels = DIGITS.labels[:400].repeat(2)
    return Dataset(
        inputs=inputs,
        labels=labels,
        test_inputs=DIGITS.test_inputs,
        test_labels=DIGITS.test_labels,
        num_classes=10,
    )


def test_a_data_set_of_copies_is_refused_before_anything_is_written(tmp_path):
    name = "tests.fedsim.run.test_overlap:doubled"
    told = small_config(data={"name": name, "limit": 800})
    with pytest.raises(ConfigError, match=r"^auxiliary: .* of 80 rows that repeat") as error:
        api.run(told, tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    alone = small_config(data={"name": name, "limit": 800}, auxiliary={"share": 0.0})
    assert api.run(alone, tmp_path / "alone").ledger().num_rows > 0


def test_games_refuse_it_too():
    told = config.read(None, [
        "data=tests.fedsim.run.test_overlap:doubled", "model=mlp", "model.hidden=8",
        "game.play=membership", "game.steps=2",
    ])  # fmt: skip
    with pytest.raises(ConfigError, match=r"^auxiliary: .* of 80 rows that repeat"):
        game_board.prepare(told)
