"""What a run folder keeps of an attack's answer, held to the rules that a report relies on."""

import torch
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.run.guesses import UNCERTAINTY, UNDETERMINED
from fedsim.run.run_folder import RunFolder

GUESSES = Rule("recording", "recovered examples", "must be finite, in the shape of the data")
SHARES = Rule("recording", "undetermined shares", "must be from 0 to 1, in the shape of the answer")
UNSURE = Rule("recording", "uncertainties", "must be at least 0, in the shape of the answer")
CHECKS = (GUESSES, SHARES, UNSURE)


def guess_of(folder: RunFolder, attack: str, round_: int, client: str) -> Tensor:
    """Return an attack's answer, as it is."""
    return folder.guesses(round_)[f"{attack}/{client}"]


def examples_of(
    folder: RunFolder, attack: str, round_: int, client: str, shape: tuple[int, ...]
) -> Tensor:
    """Return an attack's answer as examples of a shape.

    Raises:
        BadRecording: It is none.
    """
    guess = guess_of(folder, attack, round_, client)
    if tuple(guess.shape[1:]) != shape or not bool(guess.isfinite().all()):
        raise _bad(folder, GUESSES, guess, attack, round_, client)
    return guess


def undetermined(folder: RunFolder, attack: str, round_: int, client: str) -> Tensor:
    """Return the share of each entry that the update says nothing of, of an answer's shape.

    Raises:
        BadRecording: They are none.
    """
    guess = guess_of(folder, attack, round_, client)
    shares = folder.guesses(round_).get(f"{attack}/{client}/{UNDETERMINED}")
    if shares is None:
        return torch.zeros_like(guess)
    shaped = shares.shape == guess.shape and shares.is_floating_point()
    if not shaped or not bool(((shares >= 0) & (shares <= 1)).all()):
        raise _bad(folder, SHARES, shares, attack, round_, client)
    return shares


def uncertainty(folder: RunFolder, attack: str, round_: int, client: str) -> Tensor | None:
    """Return how uncertain each entry is, of an answer's shape; None where the attack says nothing.

    Raises:
        BadRecording: It is no such thing.
    """
    guess = guess_of(folder, attack, round_, client)
    unsure = folder.guesses(round_).get(f"{attack}/{client}/{UNCERTAINTY}")
    if unsure is None:
        return None
    shaped = unsure.shape == guess.shape and unsure.is_floating_point()
    if not shaped or not bool(((unsure >= 0) & unsure.isfinite()).all()):
        raise _bad(folder, UNSURE, unsure, attack, round_, client)
    return unsure


def _bad(
    folder: RunFolder, rule: Rule, value: Tensor, attack: str, round_: int, client: str
) -> BadRecording:
    return BadRecording(
        f"{folder.path}: {rule.field} {rule.rule}, got {value.dtype} of shape "
        f"{tuple(value.shape)} from {attack} for client {client} in round {round_}"
    )
