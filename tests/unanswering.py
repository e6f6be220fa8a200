"""Attacks that fail, refuse, or find nothing; each on its own or on some clients only."""

from adversary.attack import Attack
from fedsim.core.errors import NotApplicable
from tests.builders import random_guess, small_config

HERE = "tests.unanswering"
CRASH, PICTURES, PARTLY = f"{HERE}:crashing", f"{HERE}:crashing_pictures", f"{HERE}:partly"
PICKY, CHANCE = f"{HERE}:picky", f"{HERE}:at_chance"
NUM_CLIENTS, ROUNDS = 3, 2
UPDATES = NUM_CLIENTS * ROUNDS
REFUSAL = "model: must be a transformer, got an MLP"


def crash(view, auxiliary, generator):
    raise RuntimeError(f"no pivot in round {view.latest.update.round}")


def refuse(view, auxiliary, generator):
    raise NotApplicable(REFUSAL)


def guess_for_one(view, auxiliary, generator):
    if view.latest.update.client != "2":
        crash(view, auxiliary, generator)
    return random_guess(view, auxiliary, generator)


crashing = Attack(name="crashing", family="label", infer=crash)
crashing_pictures = Attack(name="pictures", family="reconstruction", infer=crash)
partly = Attack(name="partly", family="label", infer=guess_for_one)
picky = Attack(name="picky", family="membership", infer=refuse)
at_chance = Attack(name="at-chance", family="label", infer=random_guess)


def config(*attacks, **sections):
    """Return a small run with some attacks."""
    federation = {"rounds": ROUNDS, "clients": NUM_CLIENTS}
    return small_config(
        attack=[{"name": name} for name in attacks], federation=federation, **sections
    )


ALL_CRASH = config(CRASH, PICTURES)
MIXED = config(CRASH, PARTLY, PICKY, "llg")
AT_CHANCE = config(CHANCE)
