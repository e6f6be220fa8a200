"""Why an attack is not run on an update: what no attack of its kind can read, and memory."""

from adversary import placement
from adversary.attack import Attack
from adversary.costs import beyond_memory
from adversary.grading.families import FAMILIES
from adversary.inversion.applicable import whole_numbers
from fedsim.core.types import Auxiliary, View


def inapplicable(view: View, attack: Attack, auxiliary: Auxiliary) -> str:
    """Return why an attack is not run on a view; empty if it is."""
    family, clients = FAMILIES[attack.family], view.latest.update.num_clients
    if family.alone and clients > 1:
        return f"num_clients: must be 1 to {family.alone}, got {clients}"
    return without_gradient(attack, auxiliary) or _beyond_memory(view, attack, auxiliary)


def without_gradient(attack: Attack, auxiliary: Auxiliary) -> str:
    """Return why inputs cannot be reconstructed, empty if they can: ids have no gradient."""
    return whole_numbers(auxiliary) if attack.family == "reconstruction" else ""


def _beyond_memory(view: View, attack: Attack, auxiliary: Auxiliary) -> str:
    """Return why an attack's memory does not suffice; empty where it does, or no estimate is made.

    The estimate is made once a run.
    """
    latest = view.latest
    if attack.cost is None or (count := latest.update.num_examples) is None:
        return ""
    if latest.local.upload == "weights":  # of what is simulated one step's graph is the least
        count = min(count, latest.local.batch_size)
    estimate = view.memory.run.get(
        attack, (auxiliary, count), lambda: attack.estimate(auxiliary, count)
    )
    device = placement.device_of(attack, auxiliary)
    return "" if estimate is None else beyond_memory(attack.title, estimate, attack.memory, device)
