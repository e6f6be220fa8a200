"""Data sets, and what of them each party of a federation holds."""

import gzip
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from fedsim import partition
from fedsim.catalog import check_options, find, with_extensions
from fedsim.config import Config, Federation, parse_json
from fedsim.errors import ConfigError, nearest, one_line
from fedsim.rng import generator


@dataclass(frozen=True)
class Dataset:
    """Examples and labels; images are (channels, height, width) in [0, 1].

    Attributes:
        columns: A value per *training* row, by name; a partition by user takes its ids here.
    """

    inputs: Float[Tensor, "n *shape"]
    labels: Int[Tensor, " n"]
    test_inputs: Float[Tensor, "m *shape"]
    test_labels: Int[Tensor, " m"]
    num_classes: int
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.inputs.shape[1:])


@dataclass(frozen=True)
class Federated:
    """A data set dealt out: rows of the training set for each client and the adversary."""

    dataset: Dataset
    clients: tuple[Int[Tensor, " _"], ...]
    auxiliary: Int[Tensor, " _"]


def digits(root: Path) -> Dataset:  # noqa: ARG001
    """8×8 grey images of digits, 1,797 of them, embedded in scikit-learn: works offline."""
    # The file itself: importing sklearn.datasets costs 2.5 CPU-seconds in every process.
    package = importlib.util.find_spec("sklearn")
    if package is None or package.origin is None:
        raise ConfigError("data.name: 'digits' must find scikit-learn installed, got none")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    with gzip.open(path, "rt") as file:
        table = torch.from_numpy(np.loadtxt(file, delimiter=",", dtype=np.float32))
    inputs, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].long()
    # Scans of one writer stand together in the file: a stride tests on all of them.
    test = torch.arange(len(labels)) % 5 == 4
    return Dataset(inputs[~test], labels[~test], inputs[test], labels[test], num_classes=10)


def mnist(root: Path) -> Dataset:
    """28×28 grey images of digits; column `writer` where QMNIST's labels lie beside them."""
    dataset = _torchvision("MNIST", root, train={"train": True}, test={"train": False})
    path = root / "QMNIST" / "raw" / "qmnist-train-labels-idx2-int.gz"
    if path.exists():
        labels = np.frombuffer(gzip.decompress(path.read_bytes()), ">i4", offset=12)
        dataset.columns["writer"] = labels.reshape(-1, 8)[:, 2].astype(np.int64)  # type: ignore[index]
    return dataset


def fashion_mnist(root: Path) -> Dataset:
    """28×28 grey images of clothes (Zalando)."""
    return _torchvision("FashionMNIST", root, train={"train": True}, test={"train": False})


def cifar10(root: Path) -> Dataset:
    """32×32 colour photographs, 10 classes."""
    return _torchvision("CIFAR10", root, train={"train": True}, test={"train": False})


def cifar100(root: Path) -> Dataset:
    """32×32 colour photographs, 100 classes."""
    return _torchvision("CIFAR100", root, train={"train": True}, test={"train": False})


def svhn(root: Path) -> Dataset:
    """32×32 colour photographs of house numbers."""
    return _torchvision("SVHN", root, train={"split": "train"}, test={"split": "test"})


ADULT = [
    "age",
    "workclass",
    "fnlwgt",
    "education",
    "education-num",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "capital-gain",
    "capital-loss",
    "hours-per-week",
    "native-country",
    "income",
]


def adult(root: Path) -> Dataset:
    """Census records, 104 inputs, income over 50,000 a year or not; every column by name.

    Rows with a missing value are left out (45,222 stay), numbers are standardised and categories
    one-hot by the training rows. Reads `adult.data` and `adult.test`, or asks OpenML.
    """
    import pandas as pd

    if (root / "adult.data").exists():
        train, test = (
            pd.read_csv(
                root / name, names=ADULT, skiprows=skip, skipinitialspace=True, na_values="?"
            ).dropna()
            for name, skip in (("adult.data", 0), ("adult.test", 1))
        )
    else:
        from sklearn.datasets import fetch_openml

        bunch: Any = fetch_openml("adult", version=2, as_frame=True, data_home=root)
        frame: Any = bunch.frame
        frame = frame.rename(columns={"class": "income"})[ADULT].dropna()
        train, test = frame.iloc[: len(frame) * 2 // 3], frame.iloc[len(frame) * 2 // 3 :]
    numbers = train.drop(columns="income").select_dtypes("number").columns
    mean, std = train[numbers].mean(), train[numbers].std()

    def features(rows: pd.DataFrame) -> pd.DataFrame:
        categories = pd.get_dummies(rows.drop(columns=["income", *numbers]).astype(str))
        return pd.concat([(rows[numbers] - mean) / std, categories], axis=1)

    x_train = features(train)
    x_test = features(test).reindex(columns=x_train.columns, fill_value=0)
    y_train, y_test = (rows.income.astype(str).str.contains(">50K") for rows in (train, test))
    return Dataset(
        *(
            torch.from_numpy(frame.to_numpy(dtype))
            for frame, dtype in (
                (x_train, np.float32), (y_train, np.int64),
                (x_test, np.float32), (y_test, np.int64),
            )
        ),
        num_classes=2,
        columns={name: train[name].to_numpy() for name in ADULT},
    )  # fmt: skip


DATASETS: dict[str, Callable[..., Dataset]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "svhn": svhn,
    "adult": adult,
}


def load(config: Config) -> Dataset:
    """Load the data set that the config names, cut to `data.limit` rows drawn at random.

    Raises:
        ConfigError: The name or an option is unknown, or the data cannot be read.
    """
    name = config.data.name
    function = find("data.name", name, with_extensions(DATASETS, "datasets"))
    options = check_options("data", function, config.data.options)
    root = Path(config.data.root or Path.home() / ".cache" / "fedsim" / name).expanduser()
    try:
        dataset = function(root, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = one_line(error)
        raise ConfigError(f"data.root: '{name}' must be readable in {root} ({reason})") from None
    except TypeError as error:
        raise ConfigError(f"data.name: '{name}' must be a function of a folder ({error})") from None
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"data.name: must return a Dataset, got {type(dataset).__name__}")
    users = config.data.users
    if users is not None and users not in dataset.columns:
        ids = _read_ids(users, dataset)
        dataset = replace(dataset, columns={**dataset.columns, users: ids})
    if config.data.limit is None or config.data.limit >= len(dataset.labels):
        return dataset
    stream = generator(config.seed, "limit")
    rows = torch.randperm(len(dataset.labels), generator=stream)[: config.data.limit]
    return replace(
        dataset,
        inputs=dataset.inputs[rows],
        labels=dataset.labels[rows],
        columns={key: column[rows] for key, column in dataset.columns.items()},
    )


def federate(config: Config) -> Federated:
    """Load the data set, hold out the adversary's share and deal the rest to the clients.

    The last one is kept: server, clients and adversary of one process share it.

    Raises:
        ConfigError: The data cannot be read or do not suffice for the clients.
    """
    parts = {"seed", "data", "auxiliary"}
    clients = Federation(clients=config.federation.clients)
    decisive = Config(federation=clients, **{name: getattr(config, name) for name in parts})
    return _federate(decisive.model_dump_json())


@lru_cache(maxsize=1)
def _federate(text: str) -> Federated:
    config = parse_json(text)
    dataset = load(config)
    order = torch.randperm(len(dataset.labels), generator=generator(config.seed, "auxiliary"))
    held_out = round(config.auxiliary.share * len(order))
    auxiliary, private = order[:held_out].sort().values, order[held_out:].sort().values
    rows = private.numpy()
    labels, data = dataset.labels[private].numpy(), config.data
    num_clients, seed = config.federation.clients, config.seed
    if num_clients > len(rows):
        raise ConfigError(
            f"federation.clients: must be at most the {len(rows)} private examples, "
            f"got {num_clients}"
        )
    if data.partition == "iid":
        parts = partition.iid(len(rows), num_clients, seed)
    elif data.partition == "dirichlet":
        parts = partition.dirichlet(labels, num_clients, seed, alpha=data.alpha)
    elif data.partition == "shards":
        parts = partition.shards(labels, num_clients, seed, per_client=data.shards)
    else:
        ids = dataset.columns[str(data.users)]
        parts = partition.by_user(ids[rows], num_clients, seed)
    clients = tuple(torch.from_numpy(rows[part]) for part in parts)
    return Federated(dataset, clients, auxiliary)


def _read_ids(users: str, dataset: Dataset) -> NDArray[Any]:
    """Return an id per training row from a file with one a row."""
    path = Path(users).expanduser()
    if not path.exists():
        raise ConfigError(
            f"data.users: must be a column or a file with an id per row, got '{users}'"
            + (f"; {nearest(users, dataset.columns)}" if dataset.columns else "")
        )
    try:
        ids = np.load(path) if path.suffix == ".npy" else np.loadtxt(path, dtype=str, ndmin=1)
    except ValueError as error:
        raise ConfigError(f"data.users: must hold one id per row, got {path} ({error})") from None
    if len(ids) != len(dataset.labels):
        raise ConfigError(
            f"data.users: must hold an id for each of {len(dataset.labels)} rows, got {len(ids)}"
        )
    return ids


def _torchvision(name: str, root: Path, *, train: dict, test: dict) -> Dataset:
    """Load a torchvision image set, downloading it into `root` where it is not there yet."""
    import torchvision.datasets

    loader = getattr(torchvision.datasets, name)
    halves = []
    for options in (train, test):
        images = loader(str(root), download=True, **options)
        labels = images.labels if name == "SVHN" else images.targets
        halves += [_pixels(images.data), torch.as_tensor(labels, dtype=torch.int64)]
    return Dataset(*halves, num_classes=int(halves[1].max()) + 1)


def _pixels(data: Tensor | NDArray[np.uint8]) -> Float[Tensor, "n c h w"]:
    """Return uint8 images of any of torchvision's layouts as floats in [0, 1]."""
    images = torch.as_tensor(data)
    if images.ndim == 3:
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR stores colour last, SVHN first
        images = images.permute(0, 3, 1, 2)
    return images.to(torch.float32, copy=True, memory_format=torch.contiguous_format).div_(255)
