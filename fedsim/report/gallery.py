"""The report's gallery: what an attack recovered beside the client's own examples."""

# pyarrow.compute makes its functions at import:
# pyright: reportAttributeAccessIssue=false

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from adversary.grading.images import ssim
from adversary.grading.reconstructions import METRICS, decibels, is_image, paired, scaled
from fedsim.core.errors import ConfigError
from fedsim.core.types import Truth
from fedsim.core.units import name_of, written
from fedsim.data import federate
from fedsim.report.data import RunData, listed
from fedsim.run.originals import Originals
from fedsim.run.truth import truth_of

FAMILY = "reconstruction"
SHOWN_ATTACKS, SHOWN_ROUNDS, SHOWN_GUESSES = 4, 12, 3
PLACES = ("best", "median", "worst")


@dataclass(frozen=True)
class Shown:
    """One example: pictures as data URIs by what they are, and what is said of them."""

    title: str
    pictures: Mapping[str, str]
    caption: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """One attack's reconstructions.

    Attributes:
        attack: Its name.
        values: Metric, mean value and mean blind value, in words.
        heading: Which examples are shown.
        examples: The best, the median and the worst of the last attacked round.
        rounds: The best of each attacked round.
        sentences: What is to be said of them.
    """

    attack: str
    values: Sequence[tuple[str, str, str]]
    heading: str
    examples: Sequence[Shown]
    rounds: Sequence[Shown]
    sentences: Sequence[str]


@dataclass(frozen=True)
class Recovered:
    """One client's examples in one round, and what stands for each, on the scale of the data."""

    client: str
    found: Tensor
    truth: Truth

    @cached_property
    def ratios(self) -> Tensor:
        """PSNR of each example."""
        return decibels(self.found, self.truth)

    def shown(self, place: int, title: str) -> Shown:
        """Return one example with its original, and the blind picture's values."""
        inputs, lineup = self.truth.inputs, self.truth.lineup
        assert inputs is not None
        assert lineup is not None
        original = scaled(inputs[place : place + 1], lineup)
        blank = scaled(lineup.blank.unsqueeze(0), lineup)
        found = self.found[place : place + 1]
        blind = float(decibels(blank, self.truth)[place])
        alike = [float(ssim(picture, original)) for picture in (found, blank)]
        return Shown(
            title,
            {
                "original": picture(original[0]),
                "recovered": picture(found[0]),
                "difference": picture((found - original)[0].abs()),
            },
            (
                f"client {self.client}",
                f"PSNR {written('psnr', float(self.ratios[place]))} "
                f"(blind {written('psnr', blind)})",
                f"SSIM {written('ssim', alike[0])} (blind {written('ssim', alike[1])})",
            ),
        )


def galleries(run: RunData) -> list[Gallery]:
    """Return a gallery for each of the best attacks that reconstruct.

    Raises:
        BadRecording: A file of answers or of the truth is damaged.
    """
    graded = [curve.title for curve in run.leaders(FAMILY)]
    pairs = zip(run.ledger["title"].to_pylist(), run.ledger["family"].to_pylist(), strict=True)
    known = {attack for attack, family in set(pairs) if family == FAMILY}
    names = graded or [name for name in run.attacks if name in known]
    if not names:
        return []
    if run.folder.config.foreign:
        reason = "The clients' own examples are not at hand: this is another app's recording."
        return [_gallery(run, name, None, reason) for name in names[:SHOWN_ATTACKS]]
    try:
        config = run.folder.config
        originals, reason = Originals(federate(config), config.seed), None
    except ConfigError as error:
        originals, reason = None, f"The originals are not at hand ({error})."
    return [_gallery(run, name, originals, reason) for name in names[:SHOWN_ATTACKS]]


def picture(image: Tensor) -> str:
    """Return an image (channels, height, width) in [0, 1] as the data URI of a PNG file.

    One channel is grey and three are colour; of any other number the mean is shown.
    """
    from PIL import Image

    if len(image) not in (1, 3):
        image = image.mean(dim=0, keepdim=True)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if len(image) == 1 else pixels).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _gallery(run: RunData, attack: str, originals: Originals | None, reason: str | None) -> Gallery:
    values = _values(run, attack)
    rows = _answered(run, attack)
    if not rows:
        return Gallery(attack, values, "", (), (), ("It recovered nothing.",))
    last = max(rows)
    if not is_image(_guess(run, attack, last, rows[last][0]).shape[1:]):
        return Gallery(attack, values, "", (), (), ("What it recovers are no images.",))
    read = [_recovered(run, attack, last, client, originals) for client in rows[last]]
    examples = _extremes([found for found in read if found is not None])
    if examples:
        heading = f"Round {last}: {listed(PLACES[: len(examples)])} example by PSNR"
        rounds = _over_rounds(run, attack, rows, originals)
        stored = "PSNR is that of the pictures as stored, in 32 bits, which end at about 150 dB."
        return Gallery(attack, values, heading, examples, rounds, (stored,))
    client = rows[last][0]
    guesses = _guess(run, attack, last, client)[:SHOWN_GUESSES]
    alone = [
        Shown(f"guess {place}", {"recovered": picture(guess)}, (f"client {client}",))
        for place, guess in enumerate(guesses, start=1)
    ]
    said = reason or "No truth is at hand, so that the recovered pictures stand alone."
    return Gallery(
        attack, values, f"Round {last}: recovered from client {client}", alone, (), [said]
    )


def _values(run: RunData, attack: str) -> list[tuple[str, str, str]]:
    """Return the mean of each metric and of its blind value, over clients and rounds."""
    own = run.ledger.filter(
        (pc.field("title") == attack) & pc.field("client").is_valid() & pc.field("value").is_valid()
    )
    found = []
    for metric in METRICS:
        rows = own.filter(pc.field("metric") == metric)
        if rows.num_rows:
            value, blind = (pc.mean(rows[column]).as_py() for column in ("value", "blind"))
            found.append((name_of(metric), written(metric, value), written(metric, blind)))
    return found


def _answered(run: RunData, attack: str) -> dict[int, list[str]]:
    """Return the clients for whom there is an answer by round; the best recovered stand first."""
    own = run.ledger.filter(
        (pc.field("title") == attack)
        & (pc.field("metric") == "best_psnr")
        & pc.field("client").is_valid()
    )
    found: dict[int, list[tuple[float, str]]] = {}
    for row in own.select(["round", "client", "value"]).to_pylist():
        value = -np.inf if row["value"] is None else row["value"]
        found.setdefault(row["round"], []).append((-value, row["client"]))
    answered: dict[int, list[str]] = {}
    for round_, clients in found.items():
        path = run.folder.path / "guesses" / f"{round_:04d}.safetensors"
        there = set(run.folder.guesses(round_)) if path.exists() else set()
        ranked = [client for _, client in sorted(clients) if f"{attack}/{client}" in there]
        if ranked:
            answered[round_] = ranked
    return answered


def _guess(run: RunData, attack: str, round_: int, client: str) -> Tensor:
    return run.folder.guesses(round_)[f"{attack}/{client}"]


def _recovered(
    run: RunData, attack: str, round_: int, client: str, originals: Originals | None
) -> Recovered | None:
    """Return what was recovered from a client, beside its examples; None without them."""
    truth = truth_of(run.folder, round_, client)
    if originals is None or truth is None or not len(truth.indices):
        return None
    truth = originals.of(truth, round_=round_, client=client)
    assert truth is not None
    guess = _guess(run, attack, round_, client)
    return Recovered(client, paired(guess, truth), truth)


def _extremes(read: Sequence[Recovered]) -> list[Shown]:
    """Return the best, the median and the worst example of all clients; fewer of fewer."""
    ratios = torch.cat([torch.zeros(0), *(found.ratios for found in read)])
    order = ratios.argsort(descending=True, stable=True).tolist()
    owners = [(found, place) for found in read for place in range(len(found.ratios))]
    chosen = dict.fromkeys(order[at] for at in (0, len(order) // 2, -1) if order)
    return [
        owners[index][0].shown(owners[index][1], title)
        for index, title in zip(chosen, PLACES, strict=False)
    ]


def _over_rounds(
    run: RunData, attack: str, rows: Mapping[int, Sequence[str]], originals: Originals | None
) -> list[Shown]:
    """Return the best example of each attacked round; of many rounds, some from first to last."""
    rounds = sorted(rows)
    if len(rounds) > SHOWN_ROUNDS:
        places = np.linspace(0, len(rounds) - 1, SHOWN_ROUNDS).round().astype(int)
        rounds = [rounds[place] for place in places]
    found = [(r, _recovered(run, attack, r, rows[r][0], originals)) for r in rounds]
    return [
        best.shown(int(best.ratios.argmax()), f"round {round_}")
        for round_, best in found
        if best is not None
    ]
