import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsim.data import partition


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


def test_users_are_dealt_out_as_one_client_after_the_other_would_take_them():
    ids = np.random.default_rng(0).integers(0, 40, 300).astype(str)
    clients = partition.by_user(ids, 7, 0)
    owner = {user: number for number, rows in enumerate(clients) for user in ids[rows]}
    for number, rows in enumerate(clients):
        expected = [row for row, user in enumerate(ids) if owner[user] == number]
        assert rows.tolist() == expected


def test_dirichlet_is_more_skewed_for_smaller_alpha():
    labels = np.repeat(np.arange(10), 200)

    def largest_share(alpha):
        parts = partition.dirichlet(labels, 10, 0, alpha=alpha)
        return np.mean(
            [np.bincount(labels[part], minlength=10).max() / len(part) for part in parts]
        )

    assert largest_share(0.1) > 0.4 > 0.2 > largest_share(100.0)
