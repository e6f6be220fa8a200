"""A set of records for each client, of which it has a part: what attacks on usage ask about."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining, Sets
from fedsim.data import Dataset, Federated

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of a set that its client has


@dataclass(frozen=True, eq=False)
class AskedSets:
    """Sets, and the truth about them.

    Attributes:
        sets: As the adversary has them.
        rows: Client → the training row of each record of its set, −1 for a test row.
    """

    sets: Sets
    rows: Mapping[str, Tensor]


def draw_sets(federated: Federated, size: int, local: LocalTraining, seed: int) -> AskedSets:
    """Draw a set for each client: some of its rows, and test rows with the labels of others.

    Every client's labels are then those of its own rows, whatever part of the set it has. Where
    test rows of a label run out, the set is smaller.

    Args:
        federated: The data.
        size: Records of a set; a client with fewer rows has a smaller set.
        local: How many of its rows a client uses in a round.
        seed: The run's.
    """
    dataset, stream = federated.dataset, generator(seed, "usage sets")
    spare = _by_label(dataset, stream)
    inputs, labels, rows, places, expected = [], [], {}, {}, {}
    start = 0
    for place, mine in enumerate(federated.clients):
        share = SHARES[int(torch.randint(len(SHARES), (1,), generator=stream))]
        drawn = mine[torch.randperm(len(mine), generator=stream)[:size]]
        used, tests = drawn[: round(share * len(drawn))], []
        for label in dataset.labels[drawn[len(used) :]].tolist():
            tests += [spare[label].pop()] if spare[label] else []
        test_rows = torch.tensor(tests, dtype=torch.int64)
        inputs += [dataset.inputs[used], dataset.test_inputs[test_rows]]
        labels += [dataset.labels[used], dataset.test_labels[test_rows]]
        client, count = str(place), len(used) + len(tests)
        rows[client] = torch.cat([used, torch.full_like(test_rows, -1)])
        places[client] = torch.arange(start, start + count)
        in_round = min(1.0, local.batch_size / len(mine)) if local.upload == "gradient" else 1.0
        expected[client] = sum(SHARES) / len(SHARES) * len(drawn) * in_round
        start += count
    return AskedSets(Sets(torch.cat(inputs), torch.cat(labels), places, expected), rows)


def _by_label(dataset: Dataset, stream: Generator) -> dict[int, list[int]]:
    """Return the test rows of each label, in a random order."""
    rows: dict[int, list[int]] = {label: [] for label in range(dataset.num_classes)}
    for row in torch.randperm(len(dataset.test_labels), generator=stream).tolist():
        rows[int(dataset.test_labels[row])].append(row)
    return rows
