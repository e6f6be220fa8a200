"""What a plan's attacks will cost beside its training, from rehearsing two of its clients.

Two clients are trained, and attacked in three rounds. What the first answer costs beyond the second
is spent once a round; all further rounds cost what the third does. What attacks share in a round is
spent by the first of them. An attack that looks back at the client's earlier rounds costs more with
each.
"""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from adversary.attack import Attack
from adversary.grading.answers import attack_view
from adversary.grading.families import FAMILIES
from clients.train import train
from fedsim.core.boundary import PASSING
from fedsim.core.memory import Memory
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream, threads
from fedsim.core.types import Observation, Params, Update, View
from fedsim.run.prepare import Plan

FEWEST = 200  # answers of one attack in a run,
ROUNDS = 3  # in each of which two are rehearsed
SHARE = 0.1  # of the training's seconds is worth a word,
LEAST = 10.0  # and so many seconds are
REPEATS = 3  # of answers whose difference counts; the fastest of each
PARTS = {2: "a half", 5: "a fifth", 10: "a tenth"}

Clock = Callable[[], float]


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
            cohorts, seconds = _cohorts(plan, sent, clock)
        except PASSING:
            raise
        except Exception:  # the round will say which client fails, and why
            return None
        attack_costs = _Rehearsal(plan, cohorts, clock).costs(attacks, run)
    sizes = [len(rows) for rows in plan.federated.clients]
    federation = plan.config.federation
    examples = federation.rounds * federation.sampled * sum(sizes) / len(sizes)
    return Costs(seconds * examples, attack_costs)


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


def _earlier(plan: Plan) -> float:
    """Return in how many rounds a client has taken part before, on average over rounds."""
    federation, record = plan.config.federation, plan.config.record
    kept = sum(record.keeps(r) for r in range(1, federation.rounds + 1))
    share = 1 if federation.secure_aggregation else federation.sampled / federation.clients
    return share * max(0, kept - 1) / 2


def _cohorts(
    plan: Plan, sent: Params, clock: Clock
) -> tuple[Sequence[Sequence[Observation]], float]:
    """Return the uploads of a few rounds, and the CPU-seconds of training an example.

    A client of about the mean size is trained, and one of about its size; the others upload the
    same.
    """
    sizes = [len(rows) for rows in plan.federated.clients]
    mean = sum(sizes) / len(sizes)
    middle = min(range(len(sizes)), key=lambda client: abs(sizes[client] - mean))
    others = [client for client in range(len(sizes)) if client != middle] or [middle]
    # Of the same size, if any is: attacks share what they rehearse by size.
    second = min(others, key=lambda client: abs(sizes[client] - sizes[middle]))
    some, seconds = [], 0.0
    for client in (middle, second):
        begun = clock()
        some.append(_upload(plan, client, sent))
        seconds = (clock() - begun) / sizes[client]
    clients = plan.config.federation.sampled
    together = clients if plan.config.federation.secure_aggregation else 1

    def cohort(state: Params, round_: int) -> Sequence[Observation]:
        updates = (
            Update(round_, str(k), delta, count * together, together)
            for k in range(clients // together)
            for delta, count in (some[k % len(some)],)
        )
        return [Observation(state, update, plan.local) for update in updates]

    cohorts = [cohort(sent, 1)]
    for round_ in range(2, ROUNDS + 1):
        moved = {n: v + 0.1 * some[0][0][n] if n in some[0][0] else v for n, v in sent.items()}
        sent = {name: value.to(sent[name].dtype) for name, value in moved.items()}
        # Not the same uploads again: of exact copies attacks on all rounds make nothing.
        some = [({n: _grown(value) for n, value in delta.items()}, count) for delta, count in some]
        cohorts.append(cohort(sent, round_))
    return cohorts, seconds


def _grown(value: Tensor) -> Tensor:
    return 1.1 * value if value.is_floating_point() else value


def _upload(plan: Plan, client: int, sent: Params) -> tuple[dict[str, Tensor], int]:
    """Return what a client uploads, and its number of examples."""
    dataset, rows = plan.federated.dataset, plan.federated.clients[client]
    coins, defense, local = generator(0, "costs", client), plan.defense, plan.local
    model = copy.deepcopy(plan.model)
    with global_stream(0, "costs", client):
        state, _ = train(
            model, sent, dataset.inputs[rows], dataset.y[rows], local,
            generator=coins, gradient=defense.gradient, batches=defense.batches,
        )  # fmt: skip
    delta = state if local.upload == "gradient" else subtract(state, sent)
    trained = {n: delta[n] for n, value in model.named_parameters() if value.requires_grad}
    return {**delta, **defense.apply(trained, defense.init(trained), coins)[0]}, len(rows)


class _History(Sequence[Observation]):
    """A client's observations, which notice whether an attack looks at earlier ones."""

    def __init__(self, observations: Sequence[Observation]) -> None:
        self._observations, self.looked_back = observations, False

    def __len__(self) -> int:
        return len(self._observations)

    def __getitem__(self, place):
        chosen = self._observations[place]
        self.looked_back |= chosen is not self._observations[-1]
        return chosen


@dataclass(frozen=True)
class _Rehearsal:
    """Answers of attacks on a few rounds, and their CPU-seconds.

    Attacks take turns in one memory: what they share, the first of them computes, as in a run.

    Attributes:
        plan: Whose attacks they are.
        cohorts: The uploads of each round.
        clock: CPU-seconds.
    """

    plan: Plan
    cohorts: Sequence[Sequence[Observation]]
    clock: Clock

    def costs(self, attacks: Sequence[Attack], run: Memory) -> dict[Attack, float]:
        """Return the CPU-seconds of each attack in a whole run."""
        rounds = list[dict[Attack, tuple[float, float]]]()
        other = min(1, len(self.cohorts[0]) - 1)
        growth = dict.fromkeys(attacks, 0.0)
        for place in range(len(self.cohorts)):
            cohorts = self.cohorts[: place + 1]
            own, others = ([cohort[k] for cohort in cohorts] for k in (0, other))
            with Memory(run) as memory:
                first = {it: self._answer(it, memory, own, cohorts) for it in attacks}
                second = {it: self._answer(it, memory, others, cohorts) for it in attacks}
                rounds.append({it: (first[it], min(first[it], second[it])) for it in attacks})
                if place == 1:
                    growth = {it: self._growth(it, memory, own) for it in attacks}
        return {it: self._whole(it, [each[it] for each in rounds], growth[it]) for it in attacks}

    def _answer(
        self,
        attack: Attack,
        memory: Memory,
        observations: Sequence[Observation],
        cohorts: Sequence[Sequence[Observation]],
    ) -> float:
        begun, always = self.clock(), replace(attack, every=1, clients=None)
        view = View(observations, cohorts, memory)
        attack_view(view, [always], self.plan.auxiliary, self.plan.config.seed)
        return self.clock() - begun

    def _growth(self, attack: Attack, memory: Memory, observations: Sequence[Observation]) -> float:
        """Return what an earlier round adds to an answer."""
        history = _History(observations)
        self._answer(attack, memory, history, self.cohorts[:2])
        if not history.looked_back:
            return 0.0
        one, two = (
            min(
                # Observations anew, of which nothing is kept yet.
                self._answer(attack, memory, [replace(it) for it in observations[-n:]], cohorts)
                for _ in range(REPEATS)
            )
            for n, cohorts in ((1, self.cohorts[1:2]), (2, self.cohorts[:2]))
        )
        return max(0.0, two - one)

    def _whole(
        self, attack: Attack, rehearsed: Sequence[tuple[float, float]], growth: float
    ) -> float:
        """Return the CPU-seconds of a whole run.

        Args:
            attack: Whose.
            rehearsed: Of the first answer of each round, and of another.
            growth: What an earlier round adds to an answer.
        """
        rounds, clients = rounds_of(self.plan, attack), _clients_of(self.plan, attack)
        each = [
            max(0.0, first - k * growth) + max(0.0, clients - 1) * max(0.0, other - k * growth)
            for k, (first, other) in enumerate(rehearsed[:rounds])
        ]
        whole = sum(each) + (rounds - len(each)) * each[-1]
        return whole + rounds * clients * _earlier(self.plan) * growth


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
