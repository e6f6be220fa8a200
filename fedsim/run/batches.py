"""How many examples go through the model at a time, and whether it can take as many."""

from collections.abc import Iterable
from math import prod

from torch import nn

from defenses import Defense
from fedsim import data, models
from fedsim.config import Config
from fedsim.core.form import Form

EVALUATED, LOGITS = 500, 1 << 26  # test examples at a time, and entries of their logits


def evaluated(form: Form) -> int:
    """Return how many test examples go through the model at a time."""
    return max(1, min(EVALUATED, LOGITS // prod(form.logits(1))))


def check_batches(
    config: Config,
    defense: Defense,
    model: nn.Module,
    dataset: data.Dataset,
    sizes: Iterable[int],
) -> None:
    """Refuse clients one of whose batches is of a size that the model cannot take.

    Args:
        config: Of the run.
        defense: Where it draws batches by chance, it has a check of its own.
        model: Left as it is.
        dataset: Its test set is evaluated in batches, too.
        sizes: Every client's number of examples.

    Raises:
        ConfigError: There is such a size.
    """
    local, count = config.local_training(), len(dataset.test_labels)
    train: set[int] = set()
    for size in sizes if defense.batches is None else ():
        largest = min(size, local.batch_size)
        rest = size % local.batch_size if local.upload == "weights" else 0
        train |= {largest, rest} - {0}
    at_once = evaluated(dataset.form)
    test = {min(count, at_once), count % at_once} - {0}
    models.check_sizes(model, dataset.form, train, test)
