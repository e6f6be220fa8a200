from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedsim import data
from fedsim.core.errors import ConfigError
from fedsim.data import partition
from tests.builders import small_config, toy_dataset

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


def test_attributes_survive_the_limit(monkeypatch):
    sex = data.Attribute((1, 3), ("f", "m"), torch.eye(2))

    def toy(root: Path) -> data.Dataset:
        return replace(toy_dataset(root), attributes={"sex": sex})

    monkeypatch.setitem(data.DATASETS, "toy", toy)
    limited = data.load(small_config(data={"name": "toy", "limit": 40}))
    assert len(limited.labels) == 40
    assert limited.attributes == {"sex": sex}


def test_every_data_set_says_in_one_line_what_it_is():
    for name, function in data.DATASETS.items():
        first = function.__doc__.splitlines()[0]
        assert first.endswith("."), name
        assert 20 < len(first) < 100, name


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("heart-disease", "processed.cleveland.data", "x;y\n"),
        ("heart-disease", "processed.cleveland.data", None),
        ("uci-har", "uci_har_train_21subjects.npz", ""),
        ("uci-har", "uci_har_train_21subjects.npz", "no archive"),
        ("olivetti", "olivettifaces.mat", ""),
        ("olivetti", "olivettifaces.mat", "no matrix " * 99),
        ("pneumonia-mnist", "pneumoniamnist.npz", "PK\x03\x04 cut short"),
        ("cifar10", "lossless/cifar10_batch_0.png", "no picture"),
    ],
)
def test_a_file_that_is_missing_or_damaged_is_one_sentence(name, file, content, tmp_path):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(ConfigError, match=rf"data.root: '{name}' must be readable in .*\(.+\)"):
        data.load(small_config(data={"name": name, "root": str(tmp_path)}))


def test_an_archive_that_lacks_an_array_is_one_sentence(tmp_path):
    np.savez(tmp_path / "pneumoniamnist.npz", train_images=np.zeros((2, 28, 28), np.uint8))
    with pytest.raises(ConfigError, match="must be readable .*train_labels is not a file"):
        data.load(small_config(data={"name": "pneumonia-mnist", "root": str(tmp_path)}))


def test_an_archive_with_a_broken_stream_is_one_sentence(tmp_path):
    path = tmp_path / "pneumoniamnist.npz"
    np.savez_compressed(path, train_images=np.zeros((2, 28, 28), np.uint8))
    content = bytearray(path.read_bytes())
    start = 30 + content[26] + 256 * content[27] + content[28] + 256 * content[29]
    content[start] = 0b111  # the first block says that it is of a type that does not exist
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="must be readable .*invalid block type"):
        data.load(small_config(data={"name": "pneumonia-mnist", "root": str(tmp_path)}))
