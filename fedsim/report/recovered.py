"""A client's pictures beside what an attack recovered of them, with what is said of each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from adversary.grading.images import ssim
from adversary.grading.reconstructions import assigned, decibels, paired, scaled
from adversary.grading.uncertainty import in_order, rank_correlation
from fedsim.core.ground_truth import Truth
from fedsim.core.units import written
from fedsim.report.guesses import examples_of, uncertainty, undetermined
from fedsim.report.images import picture
from fedsim.run.originals import Originals
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import truth_of

LEAST = 0.01  # hidden directions that are said


@dataclass(frozen=True)
class Shown:
    """One example: pictures as data URIs by what they are, and what is said of them."""

    title: str
    pictures: Mapping[str, str]
    caption: Sequence[str]


@dataclass(frozen=True)
class Recovered:
    """One client's examples in one round, and what stands for each, on the scale of the data.

    Attributes:
        client: Its name.
        guesses: What stands for each example.
        truth: With the examples.
        open_: The share of each entry that no gradient depends on.
        unsure: How uncertain each entry is; None where the attack does not say.
    """

    client: str
    guesses: Tensor
    truth: Truth
    open_: Tensor
    unsure: Tensor | None

    @cached_property
    def ratios(self) -> Tensor:
        """PSNR of each example."""
        return decibels(self.guesses, self.truth)

    def shown(self, place: int, title: str) -> Shown:
        """Return one example with its original, and the blind picture's values."""
        inputs, lineup = self.truth.inputs, self.truth.lineup
        assert inputs is not None
        assert lineup is not None
        original = scaled(inputs[place : place + 1], lineup)
        blank = scaled(lineup.blank.unsqueeze(0), lineup)
        guess = self.guesses[place : place + 1]
        blind = float(decibels(blank, self.truth)[place])
        alike = [float(ssim(picture, original)) for picture in (guess, blank)]
        difference = (guess - original)[0].abs()
        pictures = {
            "original": picture(original[0]),
            "recovered": picture(guess[0], self.open_[place]),
            "difference": picture(difference),
        }
        unsure = None if self.unsure is None else self.unsure[place]
        if unsure is not None:
            pictures["uncertainty"] = picture(unsure / unsure.amax().clamp(min=1e-12))
        return Shown(
            title,
            pictures,
            (
                f"client {self.client}",
                f"PSNR {written('psnr', float(self.ratios[place]))} "
                f"(blind {written('psnr', blind)})",
                f"SSIM {written('ssim', alike[0])} (blind {written('ssim', alike[1])})",
                *_uncertainty_text(unsure, difference),
                *undetermined_text(self.open_[place]),
            ),
        )


def recovered(
    folder: RunFolder, attack: str, round_: int, client: str, originals: Originals | None
) -> Recovered | None:
    """Return what was recovered from a client, beside its examples; None without them.

    Raises:
        BadRecording: It is no answer to this data.
    """
    truth = truth_of(folder, round_, client)
    if originals is None or truth is None or not len(truth.indices):
        return None
    truth = originals.of(truth, round_=round_, client=client)
    assert truth is not None
    where = folder, attack, round_, client
    guess = examples_of(*where, originals.federated.dataset.input_shape)
    open_, unsure = undetermined(*where), uncertainty(*where)
    blanks = open_.new_zeros(len(truth.indices), *open_.shape[1:])
    open_ = torch.cat([open_, blanks])[assigned(guess, truth)]
    if unsure is not None:
        unsure, _ = in_order(guess, unsure, truth)
    return Recovered(client, paired(guess, truth), truth, open_, unsure)


def undetermined_text(open_: Tensor) -> list[str]:
    """Return how many numbers of an answer no gradient depends on, if any."""
    count = float(open_.sum())
    text = f"hatched: {count:.3g} of {open_.numel()} numbers are not in the gradient"
    return [text] if count > LEAST else []


def _uncertainty_text(unsure: Tensor | None, difference: Tensor) -> list[str]:
    if unsure is None:
        return []
    correlation = rank_correlation(unsure, difference)
    means = [f"{float(values.mean()):.2g}" for values in (unsure, difference)]
    texts = [f"uncertainty {means[0]} on average, {float(unsure.amax()):.2g} where white"]
    if not math.isnan(correlation):
        texts.append(f"difference {means[1]}, rank correlation {correlation:.2f}")
    return texts
