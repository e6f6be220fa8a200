"""Where the files of a data set lie: the folder of a config, or the first of the usual ones."""

import os
from pathlib import Path

from fedsim.core.paths import user_path

VARIABLE = "FEDSIM_DATA"
ROOT = Path(__file__).parents[2]  # of the project, in a clone
FOLDERS = {
    "cifar10": "cifar-10",
    "cifar100": "cifar-100",
    "pneumonia-mnist": "medmnist",
    "sms-spam": "text",
    "banking77": "text",
    "paint-girl": "text",
}
FILES = {
    "mnist": "MNIST/raw/train-images-idx3-ubyte.gz and its three siblings",
    "fashion-mnist": "FashionMNIST/raw/train-images-idx3-ubyte.gz and its three siblings",
    "cifar10": "cifar-10-batches-py/",
    "cifar100": "cifar-100-python/",
    "svhn": "train_32x32.mat and test_32x32.mat",
    "olivetti": "olivettifaces.mat",
    "pneumonia-mnist": "pneumoniamnist.npz",
    "adult": "adult.data and adult.test",
    "heart-disease": "processed.cleveland.data and those of the three other hospitals",
    "uci-har": "uci_har_train_21subjects.npz and its sibling",
    "sms-spam": "sms_spam.tsv",
    "banking77": "banking77.tsv",
    "paint-girl": "paint_girl.tsv",
}


def root_of(name: str, given: str | None) -> Path:
    """Return the folder of a data set's files.

    Without one in the config it is the folder of the set in `$FEDSIM_DATA`, or in `../shared/data`
    beside the working directory or the project, whichever exists first; else
    `~/.cache/fedsim/NAME`.

    Args:
        name: As in the config.
        given: `data.root` of the config.
    """
    if given is not None:
        return user_path("data.root", given)
    folders = [user_path(VARIABLE, os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
    folders += [base.parent / "shared" / "data" for base in (Path.cwd(), ROOT)]
    # A user's own function is no folder's name.
    names = [] if ":" in name else [name, FOLDERS.get(name, name)]
    places = (folder / each for folder in folders for each in names)
    present = (place for place in places if place.is_dir())
    return next(present, None) or user_path("data.root", f"~/.cache/fedsim/{name}")


def wanted(name: str, root: Path) -> str:
    """Return the end of a sentence that says which files are put where."""
    if name not in FILES:
        return ""
    return (
        f"; put {FILES[name]} into {root}, or set {VARIABLE} to a folder whose "
        f"{FOLDERS.get(name, name)}/ has them"
    )
