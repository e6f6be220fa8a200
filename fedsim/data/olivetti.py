"""The Olivetti faces: 40 people, 10 photographs of each."""

from pathlib import Path

import torch

from fedsim.core.catalog import Entry
from fedsim.data.images import pixels, stored_images
from fedsim.data.types import Dataset


def olivetti(root: Path) -> Dataset:
    """64×64 grey photographs of 40 faces, 10 of each; labels and column `person` say whose.

    Reads `olivettifaces.mat` (AT&T Laboratories Cambridge) and tests on the last two of each.

    Raises:
        OSError: The file is missing or cut short.
        ValueError: It is no MATLAB file of 64×64 images.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = root / "olivettifaces.mat"
    try:
        faces = loadmat(path, variable_names=["faces"])["faces"]
    except (KeyError, MatReadError) as error:
        raise ValueError(f"{path.name}: must be a MATLAB file with faces, got {error}") from None
    # MATLAB stores an image a column, and that column by column.
    if faces.ndim != 2 or faces.shape[0] != 64 * 64 or not faces.size or faces.shape[1] % 10:
        raise ValueError(
            f"{path.name}: must hold 64×64 faces, 10 of each person, got shape {faces.shape}"
        )
    images = pixels(stored_images(faces.T.reshape(-1, 64, 64).transpose(0, 2, 1), (64, 64)))
    row = torch.arange(len(images))
    person, test = row // 10, row % 10 >= 8
    return Dataset(
        inputs=images[~test],
        labels=person[~test],
        test_inputs=images[test],
        test_labels=person[test],
        num_classes=int(person.max()) + 1,
        columns={"person": person[~test].numpy()},
    )


DATASET = Entry("olivetti", olivetti, paper="Samaria, Harter, 1994")
