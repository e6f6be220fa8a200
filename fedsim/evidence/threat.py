"""The threat model of a run in words, as its config states it."""

from fedsim.config import Config
from fedsim.evidence.facts import Facts

OUTSIDE = (
    "a malicious server, which sends crafted weights to read more from the answers",
    "clients that attack each other or the model, and parties that collude",
    "people who only use the final model",
    "side channels such as timing and message sizes",
)


def threat_model(facts: Facts) -> list[str]:
    """Return what the adversary is, sees and knows; a sentence or two each."""
    config = facts.config
    return [
        "The adversary is an honest-but-curious server. It follows the protocol, keeps what it "
        "receives, and tries to learn from it what the clients hold.",
        _sees(config),
        f"Uploads of {len(facts.recorded)} rounds were kept{_kept(config)}.",
        _auxiliary(facts),
        _adaptive(config),
        "It does not know labels, inputs or coins of a client. "
        + (
            "The ground truth was used to grade its answers, and not before."
            if facts.families
            else "No answer was graded by a ground truth."
        ),
        *_noise(config),
    ]


def _sees(config: Config) -> str:
    sums = config.federation.secure_aggregation
    what = "the gradient" if config.local_training().upload == "gradient" else "the trained weights"
    if config.foreign:
        return (
            f"It sees what another app's tape holds, read as {what} of each client. How clients "
            "train is as the user of fedsim stated it."
        )
    if sums:
        return (
            "It sees, in each round, the sum over a cohort and no single upload (a simulation of "
            f"masked sums), and the weights that it sent. Clients upload {what}."
        )
    return (
        f"It sees, in each round and of each client, the weights that it sent, {what} after the "
        "client's defenses, and the client's number of examples."
    )


def _kept(config: Config) -> str:
    clients = config.record.clients
    whose = "" if clients is None else f", of clients {', '.join(clients)} alone"
    every = config.record.every
    return whose if every == 1 else f", every {every}th{whose}"


def _auxiliary(facts: Facts) -> str:
    config = facts.config
    if config.foreign:
        held = config.foreign.auxiliary or "none"
        return f"Its own examples: {held}. It knows the architecture or the last layer."
    knowledge = config.auxiliary
    question = ""
    if any(each.family in ("membership", "source") for each in facts.answers):
        question = f" It asks about {knowledge.candidates} records, half of them clients'."
    return (
        "It knows the architecture, the number of classes, how clients train, and examples of its "
        f"own: {100 * knowledge.share:g} % of the training examples, which no client has.{question}"
    )


def _adaptive(config: Config) -> str:
    if config.foreign:
        return "Whether clients defend their uploads was not stated: no attack knows a defense."
    if not config.defense:
        return "Clients have no defense in this run, so that there is none to know."
    if config.auxiliary.knows_defense:
        return (
            "It knows the clients' defenses. Each attack that can use this was run twice, with it "
            "and without."
        )
    return (
        "It does not know the clients' defenses. An adversary that does may learn more: this was "
        "not tested."
    )


def _noise(config: Config) -> list[str]:
    if config.foreign:
        return []
    return [
        "In a simulation all coins of clients follow from the run's seed. Attacks make no use of "
        "that."
    ]
