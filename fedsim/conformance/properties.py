"""The properties of an attack; each returns None where it holds, and else the reason.

An attack that raises where it must answer breaks the property with what it raised.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor

from adversary.attack import Attack
from adversary.grading.families import FAMILIES
from adversary.secrets import SECRETS
from fedsim.conformance import board
from fedsim.conformance.sequential import has_advantage, is_better
from fedsim.conformance.views import observe
from fedsim.core.boundary import PASSING, explained
from fedsim.core.catalog import options_of
from fedsim.core.errors import NotApplicable, Remark
from fedsim.core.rng import generator
from fedsim.core.types import Auxiliary, View

Broken = str | None
PICTURE, LABEL = "reconstruction", "label"
SCORES = ("membership", "range", "source", "attribute")
WITHOUT_BOARD = ("linkage",)  # asks about rounds without names
FEW = {"iterations": 60, "restarts": 1, "steps": 8}  # of descents on one small picture
NEARER = 1.2  # times the mean picture's distance over the answer's
SLIGHT = 0.005  # of a gain on noise: a constant answer may lie a little better than the blind one


@dataclass(frozen=True)
class Property:
    """One thing that an attack keeps.

    Attributes:
        name: As tables show it.
        check: Returns None where it holds.
        families: Of which attacks; all that have a board if empty.
        part: What of an attack it is about; without it, it is not about that attack.
    """

    name: str
    check: Callable[[Attack], Broken]
    families: tuple[str, ...] = ()
    part: Literal["infer", "infer_all"] = "infer"

    def applies(self, attack: Attack) -> bool:
        """Return whether it is about an attack."""
        family = attack.family in (self.families or (attack.family,))
        return family and getattr(attack, self.part) is not None


def beats_blind(attack: Attack) -> Broken:
    """On a plain gradient it is better than the blind guess; a baseline is not."""
    if attack.family == PICTURE:
        nearest = max(_nearer(attack, place) for place in range(2))
        return _unless(nearest > NEARER, f"{nearest:.2f} times as near as the mean picture")
    if attack.baseline:
        return _unless(not has_advantage(gains(attack)), "a baseline that looks at the update")
    return _unless(is_better(gains(attack)), "not better than the blind guess on a plain gradient")


def chance_without_data(attack: Attack) -> Broken:
    """On updates that are independent of the data it has no advantage."""
    if attack.family == PICTURE:
        near = [_nearer_on_noise(attack, place) for place in range(2)]
        worst = max(near, default=0.0)
        return _unless(worst < NEARER, f"{worst:.2f} times as near as the mean picture, on noise")
    for size in (1, 9):  # odd: no share lies between two of the rules'
        noise = (gain - SLIGHT for gain in gains(attack, independent=True, size=size))
        if has_advantage(noise):
            return f"better than the blind guess on noise, of {size} examples"
    return None


def same_seed(attack: Attack) -> Broken:
    """The same view and seed give the same answer, whatever other random numbers were drawn."""
    view, auxiliary = _example(attack)
    for seed in range(1 if attack.family == PICTURE else 5):  # few answers may agree by chance
        first = _answer(attack, view, auxiliary, seed)
        torch.rand(3)  # of the global generator
        if not torch.equal(first, _answer(attack, view, auxiliary, seed)):
            return "two answers for one seed"
    return None


def view_untouched(attack: Attack) -> Broken:
    """The view and the adversary's own data are the same to the bit afterwards."""
    view, auxiliary = _example(attack)
    before = {name: value.clone() for name, value in _tensors(view, auxiliary).items()}
    _answer(attack, view, auxiliary, 1)
    after = _tensors(view, auxiliary)
    changed = [name for name in before if not _same_bits(before[name], after[name])]
    return f"changed {', '.join(changed[:3])}" if changed else None


def valid_answers(attack: Attack) -> Broken:
    """Answers have the shape and type of the family, for one example and for several."""
    if attack.family == PICTURE:
        view, auxiliary = _example(attack)
        guess = _answer(attack, view, auxiliary, 0)
        whole = guess.shape == (1, *board.PIXELS) and guess.is_floating_point()
        return _unless(whole, f"{_shape(guess)} instead of one picture of {board.PIXELS}")
    for size in (1, 2, 17):
        view, truth = board.trial(0, size=size)
        guess = _answer(attack, view, board.AUXILIARY, 0)
        if broken := _invalid(attack.family, guess, size):
            return f"{broken}, for {size} examples"
        metrics = set(FAMILIES[attack.family].grade(guess, truth))
        if metrics != set(FAMILIES[attack.family].metrics):
            return f"graded by {', '.join(sorted(metrics))}"
    return None


def refuses_not_finite(attack: Attack) -> Broken:
    """NaN and infinity are refused by a ValueError, which says so."""
    for value in (math.nan, math.inf):
        gradient = {name: tensor.clone() for name, tensor in board.SENT.items()}
        gradient["2.weight"][3, 1] = value
        view = observe(gradient, 4, sent=board.SENT)
        try:
            _answer(attack, view, board.AUXILIARY, 0)
        except ValueError as error:
            if "finite" not in str(error):
                return f"a ValueError that does not say 'finite': {explained(error)}"
            continue
        except PASSING:
            raise
        except BaseException as error:
            return f"must raise ValueError or NotApplicable of {value}, got {explained(error)}"
        if not attack.baseline:  # it does not look
            return f"answers an update with {value}"
    return None


def answers_odd_gradients(attack: Attack) -> Broken:
    """Zero, negative and positive gradients get counts that add up."""
    for name, of in (("zero", 0.0), ("negative", -1.0), ("positive", 1.0)):
        stream = generator(0, "odd")
        gradient = {k: of * torch.rand(v.shape, generator=stream) for k, v in board.SENT.items()}
        guess = _answer(attack, observe(gradient, 4, sent=board.SENT), board.AUXILIARY, 0)
        if int(guess.sum()) != 4:
            return f"{int(guess.sum())} labels of 4, for a {name} gradient"
    return None


def same_together(attack: Attack) -> Broken:
    """Answers to many views at once are those to each alone, to the bit."""
    assert attack.infer_all is not None
    views = [
        board.shared_trial(seed, independent=bool(seed % 2), size=size)[0]
        for seed in range(6)
        for size in (1, 5)
    ]
    for some in (views, views[:1], views[::-1]):
        guesses = list(attack.infer_all(some, board.AUXILIARY))
        if len(guesses) != len(some):
            return f"{len(guesses)} answers to {len(some)} views"
        for view, guess in zip(some, guesses, strict=True):
            alone = _answer(attack, view, board.AUXILIARY, 0)
            if guess.dtype != alone.dtype or not _same_bits(guess, alone):
                return f"{guess.tolist()} together and {alone.tolist()} alone"
    return None


PROPERTIES = (
    Property("answers have the family's shape and type", valid_answers),
    Property("the same seed gives the same answer", same_seed),
    Property("the view is left alone, to the bit", view_untouched),
    Property("many views get the answers of each alone", same_together, (LABEL,), "infer_all"),
    Property(
        "NaN and infinity are refused by ValueError",
        refuses_not_finite,
        tuple(name for name in FAMILIES if name != PICTURE),
    ),
    Property("odd gradients get counts that add up", answers_odd_gradients, (LABEL,)),
    Property("better than blind on a plain gradient", beats_blind),
    Property("no advantage on noise in place of an update", chance_without_data),
)


def gains(attack: Attack, *, independent: bool = False, size: int = 1) -> Iterator[float]:
    """Yield value − blind, trial after trial.

    Raises:
        ValueError: An answer has NaN in it, which has no advantage and would pass as chance.
    """
    family = FAMILIES[attack.family]
    main = "accuracy" if "accuracy" in family.metrics else family.metrics[0]
    for seed in count():
        view, truth = board.shared_trial(seed, independent=independent, size=size)
        guess = attack.infer(view, board.AUXILIARY, generator(seed, "infer"))
        if bool(torch.isnan(guess).any()):
            raise ValueError(f"must answer with numbers, got NaN for {size} examples")
        blind = family.blind(view, board.AUXILIARY, generator(seed, "blind"))
        yield family.grade(guess, truth)[main] - family.grade(blind, truth)[main]


def _answer(attack: Attack, view: View, auxiliary: Auxiliary, seed: int) -> Tensor:
    """Return an attack's answer, after a few steps where it takes steps."""
    options: dict[str, Any] = {}
    if attack.family == PICTURE:
        options = {name: FEW[name] for name in set(FEW) & set(options_of(attack.infer))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Remark)
        guess = attack.infer(view, auxiliary, generator(seed), **options)
    return FAMILIES[attack.family].check(guess, auxiliary)


def _example(attack: Attack) -> tuple[View, Auxiliary]:
    if attack.family == PICTURE:
        return board.picture(1, _knows(attack)), _knows(attack)
    return board.trial(3, size=5)[0], board.AUXILIARY


def _tensors(view: View, auxiliary: Auxiliary) -> dict[str, Tensor]:
    """Return all that an attack is shown, by name."""
    observations = [*view.observations, *(it for cohort in view.cohorts for it in cohort)]
    tensors: dict[str, Tensor] = {}
    for it in observations:
        who = f"client {it.update.client}, round {it.update.round}"
        tensors |= {f"the update {name} of {who}": v for name, v in it.update.delta.items()}
        tensors |= {f"the weights {name} sent to {who}": v for name, v in it.sent.items()}
    tensors |= {f"the model ({k})": v for k, v in auxiliary.model.state_dict().items()}
    auxiliary_data = {"inputs": auxiliary.inputs, "labels": auxiliary.labels}
    return tensors | {f"auxiliary {k}": v for k, v in auxiliary_data.items() if v is not None}


def _same_bits(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and left.numpy().tobytes() == right.numpy().tobytes()


def _invalid(family: str, guess: Tensor, size: int) -> Broken:
    """Return why an answer is none of the family's."""
    if family == LABEL:
        counts = guess.shape == (board.NUM_CLASSES,) and guess.dtype == torch.int64
        if not counts or int(guess.min()) < 0 or int(guess.sum()) != size:
            return f"{_shape(guess)} instead of whole numbers ≥ 0 of {board.NUM_CLASSES} classes"
    if family in SCORES:
        whole = guess.shape == board.CANDIDATES.labels.shape and guess.dtype == torch.float64
        if not whole or not bool(torch.isfinite(guess).all()):
            return f"{_shape(guess)} instead of a finite float64 for each candidate"
    if family in SECRETS and (guess.shape != (2,) or abs(float(guess.exp().sum()) - 1) > 1e-6):
        return f"{_shape(guess)} instead of two log-probabilities"
    return None


@lru_cache
def _knows(attack: Attack) -> Auxiliary:
    """Return what an attack on pictures is given: the first model that it does not refuse."""
    for knows in board.PICTURED[:-1]:
        try:
            _answer(attack, board.picture(1, knows), knows, 0)
        except NotApplicable:
            continue
        return knows
    return board.PICTURED[-1]


def _nearer(attack: Attack, place: int) -> float:
    knows = _knows(attack)
    guess = _answer(attack, board.picture(place, knows), knows, place)
    mean, true = board.PICTURES[10:].mean(dim=0), board.PICTURES[place]
    return float((mean - true).norm() / (guess[0] - true).norm())


def _nearer_on_noise(attack: Attack, place: int) -> float:
    try:
        knows = _knows(attack)
        guess = _answer(attack, board.noise_picture(place, knows), knows, place)
    except (NotApplicable, ValueError):  # refuses what cannot be
        return 0.0
    mean, true = board.PICTURES[10:].mean(dim=0), board.PICTURES[place]
    return float((mean - true).norm() / (guess[:1].clamp(0, 1) - true).norm())


def _shape(guess: Tensor) -> str:
    return f"{str(guess.dtype).removeprefix('torch.')} of shape {tuple(guess.shape)}"


def _unless(holds: bool, reason: str) -> Broken:
    return None if holds else reason
