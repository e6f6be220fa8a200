"""How a client trains: known from the config alone, and so without torch."""

from dataclasses import dataclass
from typing import Literal

Upload = Literal["weights", "gradient"]
Optimizer = Literal["sgd", "adam", "adamw"]
TITLES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains: public, because the protocol tells every party.

    Attributes:
        lr: Learning rate.
        batch_size: Examples per local step; the last batch of an epoch may be smaller.
        epochs: Passes over the client's data per round; 1 with `upload="gradient"`.
        upload: The trained weights, or the gradient of one batch at the weights sent.
        proximal_mu: FedProx's pull towards the weights sent; 0 is plain SGD.
        momentum: Heavy-ball momentum of SGD, starting from rest in every round; 0 is plain SGD.
        label_smoothing: Share of each target spread evenly over all classes.
        optimizer: Takes the steps; Adam's moments are 0 at the start of every round.
    """

    lr: float
    batch_size: int
    epochs: int = 1
    upload: Upload = "weights"
    proximal_mu: float = 0.0
    momentum: float = 0.0
    label_smoothing: float = 0.0
    optimizer: Optimizer = "sgd"

    @property
    def sums_gradients(self) -> bool:
        """Whether an upload is a gradient, or a sum of gradients with weights that are public."""
        return self.optimizer == "sgd" or self.upload == "gradient"
