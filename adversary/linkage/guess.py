"""A guess of who is who: scores of pairs and sequences, in one matrix."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def packed(
    scores: Float[Tensor, "latest earlier"], sequences: Int[Tensor, " uploads"]
) -> Float[Tensor, "rows uploads"]:
    """Return both as one matrix.

    Args:
        scores: Of each upload of the latest round with each earlier one, higher where they are
            likelier of one client.
        sequences: Which client, as the attack numbers them, each upload is of: earlier uploads
            first, then those of the latest round.

    Returns:
        First row: the sequences. Other rows: an upload of the latest round each, with its scores;
        zeros in the columns of the latest round.
    """
    wide = torch.nn.functional.pad(scores.double(), (0, len(scores)))
    return torch.cat([sequences.double().unsqueeze(0), wide])


def unpacked(
    guess: Float[Tensor, "rows uploads"],
) -> tuple[Float[Tensor, "latest earlier"], Int[Tensor, " uploads"]]:
    """Return scores and sequences of a guess."""
    latest = len(guess) - 1
    return guess[1:, : guess.shape[1] - latest], guess[0].long()


def checked(guess: Tensor) -> Tensor:
    """Return the guess.

    Raises:
        ValueError: It is no finite matrix of a row more than a round has uploads.
    """
    if guess.ndim != 2 or not 1 < len(guess) <= guess.shape[1] or not torch.isfinite(guess).all():
        rule = "must be a finite matrix with a row of sequences and a row per latest upload"
        raise ValueError(f"guess: {rule}, got shape {tuple(guess.shape)}")
    return guess
