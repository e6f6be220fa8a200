"""What an adversary has of each trial: the upload, and what it knew beforehand."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Records:
    """Records in question.

    Attributes:
        targets: Each under every value of the secret, shape (n, values, *shape).
        labels: Those that it may have, shape (n, labels); of a text its next tokens, (n, 1, T).
        others: Inputs (n, batch − 1, *shape) and labels (n, batch − 1, …) of all other records of
            each batch, where they are known.
    """

    targets: Tensor
    labels: Int[Tensor, "n labels *target"]
    others: tuple[Tensor, Int[Tensor, "n others *target"]] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Records, values, and labels."""
        return len(self.labels), self.targets.shape[1], self.labels.shape[1]

    def part(self, rows: slice) -> "Records":
        """Return some of them."""
        others = None if self.others is None else (self.others[0][rows], self.others[1][rows])
        return Records(self.targets[rows], self.labels[rows], others)

    @classmethod
    def joined(cls, parts: "Sequence[Records]") -> "Records":
        """Return the records of several parts, in order."""
        others = [part.others for part in parts if part.others is not None]
        return cls(
            torch.cat([part.targets for part in parts]),
            torch.cat([part.labels for part in parts]),
            tuple(map(torch.cat, zip(*others, strict=True))) if others else None,  # type: ignore[arg-type]
        )

    def alone(self) -> tuple[Tensor, Int[Tensor, "rows 1 *target"]]:
        """Return the inputs and labels of all hypotheses, each as a batch of its own."""
        inputs = self.targets[:, :, None].expand(*self.shape, *self.targets.shape[2:])
        each = self.labels[:, None].expand(*self.shape, *self.labels.shape[2:])
        return inputs.flatten(0, 2)[:, None], each.flatten(0, 2)[:, None]


@dataclass(frozen=True)
class Evidence:
    """What the adversary has of n trials.

    Attributes:
        uploads: Flat gradients or updates, pointing uphill; of several clients in turn where the
            game has them, shape (n, d) or (n, clients, d).
        batch: Records per upload, as far as the adversary knows.
        weight: How often an upload holds one record's gradient: one over the batch, or, for
            trained weights, epochs over the size of a local step.
        hypotheses: The gradient of the record in question under each value of the secret, for
            each label that it may have, shape (n, values, labels, d); None where none is known.
        others: The mean gradient of all other records of each batch, where they are known; shaped
            as the uploads.
        records: The records that the hypotheses are of, for who sends them through a defense.
        norms: Of every tensor of each upload, shape (n, tensors); None where records are in
            question.
        readings: The head's bias gradient and the first layer's mean input, shape (n, cells); None
            likewise.
    """

    uploads: Float[Tensor, "n ..."]
    batch: int
    weight: float
    hypotheses: Float[Tensor, "n values labels d"] | None = None
    others: Float[Tensor, "n ..."] | None = None
    records: Records | None = None
    norms: Float[Tensor, "n tensors"] | None = None
    readings: Float[Tensor, "n cells"] | None = None

    def part(self, rows: slice) -> "Evidence":
        """Return some of the trials."""
        cut = lambda value: None if value is None else value[rows]
        return replace(
            self,
            uploads=self.uploads[rows],
            hypotheses=cut(self.hypotheses),
            others=cut(self.others),
            records=self.records and self.records.part(rows),
            norms=cut(self.norms),
            readings=cut(self.readings),
        )


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Return the trials of several parts, in order."""
    first, rest = parts[0], {}
    for name in ("uploads", "hypotheses", "others", "norms", "readings"):
        values = [getattr(part, name) for part in parts]
        rest[name] = None if values[0] is None else torch.cat(values)
    records = [part.records for part in parts if part.records is not None]
    return replace(first, **rest, records=Records.joined(records) if records else None)
