"""Answers of attacks on a few rounds that a plan's clients rehearse, and their CPU-seconds."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from adversary.attack import Attack
from adversary.carried import Carried
from adversary.grading.answers import attack_view
from clients.train import train
from fedsim.core.memory import Memory
from fedsim.core.params import subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import Observation, Params, Update, View
from fedsim.run.prepare import Plan

ROUNDS = 3  # in each of which a few clients are rehearsed
REPEATS = 3  # of answers whose difference counts; the fastest of each
SHORT = (
    2.0  # seconds of all first answers, which are then given twice: imports are no part of a run
)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Rehearsed:
    """CPU-seconds of an attack's answers.

    Attributes:
        rounds: Of each round: of its first answer, of another on a client of the same size, and of
            the first on a client of another size.
        growth: What an earlier round adds to an answer.
    """

    rounds: Sequence[tuple[float, float, float]]
    growth: float


def sizes_of(plan: Plan) -> list[int]:
    """Return how many examples each client's upload is of: its own, or those of one batch."""
    most = plan.local.batch_size if plan.local.upload == "gradient" else None
    counts = [len(rows) for rows in plan.federated.clients]
    return counts if most is None else [min(most, count) for count in counts]


def num_sizes(plan: Plan) -> float:
    """Return how many sizes the clients of a round have, on average.

    Sizes within a factor of √2 are one, as attacks that rehearse clients share rehearsals.
    """
    sizes, sampled = sizes_of(plan), plan.config.federation.sampled
    of_size = Counter(map(_about, sizes))
    absent = (_absent(count, len(sizes), sampled) for count in of_size.values())
    return len(of_size) - sum(absent)


def _absent(count: int, clients: int, sampled: int) -> float:
    """Return the chance that none of `count` clients is sampled."""
    rest = clients - count
    if sampled > rest:
        return 0.0
    ways = lambda among: math.lgamma(among + 1) - math.lgamma(among - sampled + 1)
    return math.exp(ways(rest) - ways(clients))


def _about(count: int) -> int:
    """Return one number for all counts within a factor of √2."""
    return round(2 * math.log2(max(1, count)))


def chosen(sizes: Sequence[int]) -> list[int]:
    """Return the clients that are rehearsed: of about the mean size, of the same, and of another.

    The third is left out where all sizes are one, the second where there is one client.
    """
    mean = sum(sizes) / len(sizes)
    middle = min(range(len(sizes)), key=lambda client: abs(sizes[client] - mean))
    by_distance = sorted(
        (client for client in range(len(sizes)) if client != middle),
        key=lambda client: abs(sizes[client] - sizes[middle]),
    )
    others = [it for it in by_distance[1:] if _about(sizes[it]) != _about(sizes[middle])]
    return [middle, *by_distance[:1], *others[:1]]


def cohorts(
    plan: Plan, sent: Params, clock: Clock
) -> tuple[Sequence[Sequence[Observation]], float]:
    """Return the uploads of a few rounds, and the CPU-seconds of training an example.

    The first are those of the `chosen` clients; the others upload the same.
    """
    sizes = sizes_of(plan)
    some, seconds = [], 0.0
    for client in chosen(sizes):
        begun = clock()
        some.append((_upload(plan, client, sent), sizes[client]))
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

    rounds = [cohort(sent, 1)]
    for round_ in range(2, ROUNDS + 1):
        moved = {n: v + 0.1 * some[0][0][n] if n in some[0][0] else v for n, v in sent.items()}
        sent = {name: value.to(sent[name].dtype) for name, value in moved.items()}
        # Not the same uploads again: of exact copies attacks on all rounds make nothing.
        some = [({n: _grown(value) for n, value in delta.items()}, count) for delta, count in some]
        rounds.append(cohort(sent, round_))
    return rounds, seconds


def _grown(value: Tensor) -> Tensor:
    return 1.1 * value if value.is_floating_point() else value


def _upload(plan: Plan, client: int, sent: Params) -> dict[str, Tensor]:
    """Return what a client uploads."""
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
    return {**delta, **defense.apply(trained, defense.init(trained), coins)[0]}


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


def rehearse(
    plan: Plan,
    cohorts: Sequence[Sequence[Observation]],
    attacks: Sequence[Attack],
    run: Memory,
    clock: Clock,
) -> Mapping[Attack, Rehearsed]:
    """Return what the answers of each attack cost.

    Attacks take turns in one memory: what they share, the first of them computes, as in a run.

    Args:
        plan: Whose attacks they are.
        cohorts: The uploads of each round.
        attacks: Of the plan.
        run: The memory of the whole run.
        clock: CPU-seconds.
    """
    answering, growth = _Answering(plan, cohorts, clock), dict.fromkeys(attacks, 0.0)
    rounds = list[dict[Attack, tuple[float, float, float]]]()
    for place in range(len(cohorts)):
        until = cohorts[: place + 1]
        clients = [[cohort[k] for cohort in until] for k in range(min(3, len(until[0])))]
        with Memory(run) as memory:
            spent = [
                {it: answering.cost(it, memory, client) for it in attacks} for client in clients
            ]
            if place == 0 and sum(spent[0].values()) < SHORT:
                spent[0] = answering.again(spent[0], clients[0])
            rounds.append({it: _of_round([each[it] for each in spent]) for it in attacks})
            if place == 1:
                growth = {it: answering.growth(it, memory, clients[0]) for it in attacks}
    return {it: Rehearsed([each[it] for each in rounds], growth[it]) for it in attacks}


def _of_round(spent: Sequence[float]) -> tuple[float, float, float]:
    """Return the seconds of the first answer, of one on the same size, and on another size."""
    same = min(spent[:2])
    return spent[0], same, max([same, *spent[2:]])


@dataclass(frozen=True)
class _Answering:
    """Answers of attacks on rehearsed rounds."""

    plan: Plan
    cohorts: Sequence[Sequence[Observation]]
    clock: Clock

    def cost(self, attack: Attack, memory: Memory, observations: Sequence[Observation]) -> float:
        """Return the CPU-seconds of one answer in the latest of a client's rounds."""
        begun, always = self.clock(), replace(attack, every=1, clients=None)
        round_ = observations[-1].update.round
        rounds = self.cohorts[round_ - len(observations) : round_]
        view = View(observations, rounds, memory)
        attack_view(view, [always], self.plan.auxiliary, self.plan.config.seed)
        return self.clock() - begun

    def again(
        self, spent: Mapping[Attack, float], observations: Sequence[Observation]
    ) -> dict[Attack, float]:
        """Return the CPU-seconds of first answers, the less of before and now."""
        with Memory() as run, Memory(run) as memory:
            return {
                it: min(cost, self.cost(it, memory, observations)) for it, cost in spent.items()
            }

    def growth(self, attack: Attack, memory: Memory, observations: Sequence[Observation]) -> float:
        """Return what an earlier round adds to an answer: nothing, if that is carried on."""
        history, kept = _History(observations), memory.run.get(Carried, None, Carried)
        asked = kept.asked
        self.cost(attack, memory, history)
        if not history.looked_back or kept.asked > asked:
            return 0.0
        one, two = (
            min(
                # Observations anew, of which nothing is kept yet.
                self.cost(attack, memory, [replace(it) for it in observations[-n:]])
                for _ in range(REPEATS)
            )
            for n in (1, 2)
        )
        return max(0.0, two - one)
