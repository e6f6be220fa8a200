import numpy as np
import pytest
import torch

from fedsim import data
from fedsim.core.errors import ConfigError
from tests.builders import small_config

TOY = {"name": "tests.builders:toy_dataset"}


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
    assert len(data.load(toy.data, toy.seed).columns[str(tmp_path / "ids.txt")]) == 40
    for config in (by_column, by_file):
        for rows in data.federate(config).clients:
            others = [r for r in data.federate(config).clients if r is not rows]
            assert not set(ids[rows]) & set(ids[torch.cat(others)])


@pytest.mark.parametrize(
    ("tables", "sentence"),
    [
        ({"data": "minst"}, "data.name: must be a known name, got 'minst'; did you mean 'mnist'"),
        ({"data": "nowhere:data"}, "data.name: must be an importable package.module:function"),
        (
            {"data": "tests.builders:observe"},
            "data.name: .* must be a function that takes a folder",
        ),
        (
            {"data": {"name": "digits", "alhpa": 1}},
            "data.alhpa: must be a known key; did you mean 'alpha'",
        ),
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
