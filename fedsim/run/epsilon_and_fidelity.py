"""What the clients' defenses cost and promise: rows of the metrics table."""

from collections.abc import Iterator, Mapping

from clients import carried
from fedsim.core.rows import Measure
from fedsim.core.truths import facts_of
from fedsim.run.prepare import Plan
from fedsim.run.run_folder import RunFolder
from fedsim.run.truth import carried_by
from strategies.tape import recorded_rounds

FIDELITY = ("update_cosine", "update_snr_db", "upload_bytes")


def epsilon_and_fidelity(
    plan: Plan, folder: RunFolder, round_: int, rounds_of: Mapping[str, int]
) -> list[Measure]:
    """Return what the clients' defenses cost and promise after a round.

    The distance between an upload and the undefended one is in the client's truth, if there is
    any. ε follows from the protocol; it is computed in evaluated rounds and in the last round.

    Args:
        plan: Of the run.
        folder: Where the run is kept.
        round_: The round.
        rounds_of: Client → rounds so far in which its upload may have left it, this one included;
            every client with any. An upload that is late or refused was out, and counts.
    """
    if not plan.config.defense:
        return []
    measures = list(_fidelity(folder, round_))
    federation = plan.config.federation
    if federation.is_evaluated(round_) or round_ == federation.rounds:
        measures += _epsilons(plan, folder, round_, rounds_of)
    return measures


def _fidelity(folder: RunFolder, round_: int) -> Iterator[Measure]:
    """Return how far each upload is from the undefended one, as its client wrote it."""
    costs = facts_of(folder.truth, round_)
    for client in sorted(costs):
        for name in FIDELITY:
            if name in costs[client]:
                yield Measure(round_, "defense", name, float(costs[client][name]), client)


def _epsilons(
    plan: Plan, folder: RunFolder, round_: int, rounds_of: Mapping[str, int]
) -> Iterator[Measure]:
    """Return each client's ε after its rounds so far; none if it does not cover all that moves."""
    promise = plan.defense.promise
    if promise.epsilon is None or plan.moved:
        return
    recorded = recorded_rounds(folder.path)
    for client, rounds in sorted(rounds_of.items(), key=lambda item: int(item[0])):
        size = len(plan.federated.clients[int(client)])
        if carried_by(plan, folder, client, recorded):
            size += carried.num_records(plan.config.audit, plan.defense, client)
        epsilon = promise.epsilon(plan.local, size, rounds)
        yield Measure(round_, "defense", "epsilon", epsilon, client)
