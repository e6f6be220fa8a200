import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsim import data, partition
from fedsim.errors import ConfigError
from tests.builders import small_config

SHARED = Path(os.environ.get("FEDSIM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
TOY = {"name": "tests.builders:toy_dataset"}


@given(st.integers(1, 12), st.integers(0, 3), st.floats(0.05, 50))
def test_every_partition_deals_each_row_out_once(num_clients, seed, alpha):
    labels = np.arange(60) % 4
    dealt = [
        partition.iid(60, num_clients, seed),
        partition.dirichlet(labels, num_clients, seed, alpha=alpha),
        partition.shards(labels, num_clients, seed, per_client=2),
        partition.by_user(np.arange(60) % 12, num_clients, seed),
    ]
    for parts in dealt:
        assert len(parts) == num_clients
        assert min(map(len, parts)) > 0
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(60))


def test_shards_hold_few_labels_and_users_stay_whole():
    labels = np.repeat(np.arange(10), 20)
    for part in partition.shards(labels, 10, 0, per_client=2):
        assert len(np.unique(labels[part])) <= 2
    ids = np.array(list("aabbccdd") * 5)
    owners = [set(ids[part]) for part in partition.by_user(ids, 3, 0)]
    assert sum(map(len, owners)) == 4


def test_dirichlet_is_more_skewed_for_smaller_alpha():
    labels = np.repeat(np.arange(10), 200)

    def largest_share(alpha):
        parts = partition.dirichlet(labels, 10, 0, alpha=alpha)
        return np.mean(
            [np.bincount(labels[part], minlength=10).max() / len(part) for part in parts]
        )

    assert largest_share(0.1) > 0.4 > 0.2 > largest_share(100.0)


@pytest.mark.parametrize("scheme", ["iid", "dirichlet", "shards"])
def test_the_adversarys_share_is_disjoint_from_all_clients(scheme):
    federated = data.federate(small_config(data={"limit": 200, "partition": scheme}))
    rows = torch.cat([*federated.clients, federated.auxiliary])
    assert len(federated.auxiliary) == 20
    assert torch.equal(rows.sort().values, torch.arange(200))


def test_users_come_from_a_column_or_a_file(tmp_path):
    ids = np.arange(60) % 6
    by_column = small_config(data=TOY | {"partition": "user", "users": "user"})
    np.savetxt(tmp_path / "ids.txt", ids, fmt="%d")
    by_file = small_config(data=TOY | {"partition": "user", "users": str(tmp_path / "ids.txt")})
    cut = {"users": str(tmp_path / "ids.txt"), "partition": "user", "limit": 40}
    toy = small_config(data=TOY | cut)
    assert len(data.load(toy).columns[str(tmp_path / "ids.txt")]) == 40
    for config in (by_column, by_file):
        for rows in data.federate(config).clients:
            others = [r for r in data.federate(config).clients if r is not rows]
            assert not set(ids[rows]) & set(ids[torch.cat(others)])


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"data": "minst"}, "data.name: must be a known name, got 'minst'; did you mean 'mnist'"),
        ({"data": "nowhere:data"}, "data.name: must be an importable package.module:function"),
        ({"data": "tests.builders:observe"}, "data.name: .* must be a function of a folder"),
        ({"data": {"name": "digits", "alhpa": 1}}, "data.alhpa: must be a known key"),
        ({"data": {"limit": 3}}, "federation.clients: must be at most the 3 private examples"),
        (
            {"data": TOY | {"partition": "user", "users": "usr"}},
            "data.users: .*did you mean 'user'",
        ),
        ({"data": {"name": "mnist", "root": "/dev/null/x"}}, "data.root: 'mnist' must be readable"),
    ],
)
def test_data_that_cannot_be_had_is_one_sentence(tables, sentence):
    with pytest.raises(ConfigError, match=sentence):
        data.federate(small_config(**tables))


def test_digits_are_the_ones_of_scikit_learn():
    from sklearn.datasets import load_digits

    ours, theirs = data.digits(Path()), load_digits()
    assert len(ours.labels) + len(ours.test_labels) == len(theirs.target) == 1797
    test = np.arange(1797) % 5 == 4
    assert np.array_equal(ours.test_inputs.numpy()[:, 0] * 16, theirs.images[test])
    assert np.array_equal(ours.labels.numpy(), theirs.target[~test])


def test_adult_has_the_published_size_and_columns():
    root = SHARED / "adult"
    if not root.exists():
        pytest.skip(f"no Adult data in {root}")
    adult = data.adult(root)
    assert len(adult.labels) + len(adult.test_labels) == 45_222
    assert adult.input_shape == (104,)
    assert adult.inputs.mean(dim=0)[:6].abs().max() < 1e-3
    assert 0.24 < float(adult.labels.float().mean()) < 0.26
    assert set(np.unique(adult.columns["sex"])) == {"Female", "Male"}


def test_mnist_knows_its_writers(tmp_path):
    root = SHARED / "mnist"
    if not root.exists():
        pytest.skip(f"no MNIST in {root}")
    for path in root.rglob("*.gz"):
        copy = tmp_path / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    mnist = data.mnist(tmp_path)
    assert mnist.inputs.shape == (60_000, 1, 28, 28)
    assert float(mnist.inputs.max()) == 1
    assert len(np.unique(mnist.columns["writer"])) == 539
    raw = gzip.decompress((root / "QMNIST/raw/qmnist-train-labels-idx2-int.gz").read_bytes())
    digits = np.frombuffer(raw, ">i4", offset=12).reshape(-1, 8)[:, 0]
    assert np.array_equal(digits, mnist.labels)
