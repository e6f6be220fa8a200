"""What a plan's attacks will cost beside its training, from rehearsing three of its clients.

They are trained, and attacked in three rounds. What the first answer costs beyond the second, on a
client of the same size, is spent once a round; what the third costs beyond the second, on a client
of another size, is spent once for each further size. All further rounds cost what the third does.
What attacks share in a round is spent by the first of them. An attack that looks back at the
client's earlier rounds costs more with each.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from adversary.attack import Attack
from adversary.grading.families import FAMILIES
from fedsim.core.boundary import PASSING
from fedsim.core.memory import Memory
from fedsim.core.rng import threads
from fedsim.run.prepare import Plan
from fedsim.run.rehearsed_costs import Clock, Rehearsed, cohorts, num_sizes, rehearse, sizes_of

FEWEST = 200  # answers of one attack in a run are rehearsed
SHARE = 0.1  # of the training's seconds is worth a word,
LEAST = 10.0  # and so many seconds are
PARTS = {2: "a half", 5: "a fifth", 10: "a tenth"}


@dataclass(frozen=True)
class Costs:
    """CPU-seconds of a run.

    Attributes:
        training: Of all clients, one after another.
        attacks: Of each attack that is rehearsed.
    """

    training: float
    attacks: Mapping[Attack, float]

    @property
    def total(self) -> float:
        """Of all together."""
        return self.training + sum(self.attacks.values())


def expected_costs(plan: Plan, clock: Clock = time.process_time) -> Costs | None:
    """Return what a run will cost; None where no attack gives enough answers to rehearse it.

    An attack on whole rounds is not rehearsed, nor is what audits and evaluation cost, nor to read
    the uploads of earlier rounds from files.

    Args:
        plan: Nothing of it is changed.
        clock: CPU-seconds.
    """
    attacks = [attack for attack in plan.attacks if _is_rehearsed(plan, attack)]
    if not attacks:
        return None
    sent = {name: value.clone() for name, value in plan.model.state_dict().items()}
    with threads(plan.config.engine.threads), Memory() as run:
        try:
            uploads, seconds = cohorts(plan, sent, clock)
        except PASSING:
            raise
        except Exception:  # the round will say which client fails, and why
            return None
        rehearsed = rehearse(plan, uploads, attacks, run, clock)
    sizes = sizes_of(plan)
    federation = plan.config.federation
    examples = federation.rounds * federation.sampled * sum(sizes) / len(sizes)
    return Costs(seconds * examples, {it: _whole(plan, it, rehearsed[it]) for it in attacks})


def remarks(plan: Plan, costs: Costs) -> list[str]:
    """Return a sentence for each attack that costs much beside the training."""
    sentences = []
    for attack, seconds in costs.attacks.items():
        if seconds < LEAST or seconds < SHARE * costs.training:
            continue
        wanted = seconds / max(SHARE * costs.training, 1e-9)
        fitting = [n for n in PARTS if n <= rounds_of(plan, attack)]
        every = next((n for n in fitting if n >= wanted), max(fitting, default=0))
        hint = f"; every = {every * attack.every} makes it {PARTS[every]}" if every else ""
        about = f"about {_duration(seconds)} of the run's {_duration(costs.total)} of CPU time"
        sentences.append(f"attack.{attack.title}: {about}{hint}")
    return sentences


def rounds_of(plan: Plan, attack: Attack) -> int:
    """Return on how many rounds of a plan an attack is run."""
    last = plan.config.federation.rounds
    return sum(plan.config.record.keeps(r) and attack.is_due(r) for r in range(1, last + 1))


def _is_rehearsed(plan: Plan, attack: Attack) -> bool:
    answers = rounds_of(plan, attack) * _clients_of(plan, attack)
    return answers >= FEWEST and not attack.baseline and not FAMILIES[attack.family].of_round


def _clients_of(plan: Plan, attack: Attack) -> float:
    """Return how many clients of a round an attack answers on, on average."""
    federation, record = plan.config.federation, plan.config.record
    if federation.secure_aggregation:
        return 1
    names = map(str, range(federation.clients))
    kept = sum(record.keeps(1, name) and attack.is_due(1, name) for name in names)
    return federation.sampled * kept / federation.clients


def _whole(plan: Plan, attack: Attack, rehearsed: Rehearsed) -> float:
    """Return the CPU-seconds of an attack in a whole run."""
    rounds, clients = rounds_of(plan, attack), _clients_of(plan, attack)
    sizes = min(num_sizes(plan), max(1.0, clients))
    each = []
    for k, (first, same, other) in enumerate(rehearsed.rounds[:rounds]):
        looks = k * rehearsed.growth  # at earlier rounds, which are counted below
        once, again = max(0.0, first - looks), max(0.0, same - looks)
        each.append(once + (clients - 1) * again + (sizes - 1) * max(0.0, other - same))
    whole = sum(each) + (rounds - len(each)) * each[-1]
    return whole + rounds * clients * _earlier(plan) * rehearsed.growth


def _earlier(plan: Plan) -> float:
    """Return in how many rounds a client has taken part before, on average over rounds."""
    federation, record = plan.config.federation, plan.config.record
    kept = sum(record.keeps(r) for r in range(1, federation.rounds + 1))
    share = 1 if federation.secure_aggregation else federation.sampled / federation.clients
    return share * max(0, kept - 1) / 2


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
