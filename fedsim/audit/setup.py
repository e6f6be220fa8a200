"""What one setting is audited with: data, a model, a mechanism, and its claim."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from adversary.auditing.claim import Claim
from adversary.auditing.sensitivity import Question
from adversary.games.records import Pool
from defenses.promise import Relation
from fedsim import data, models
from fedsim.audit import checks
from fedsim.audit.claims import claim_of, clip_of, relation_of
from fedsim.audit.last_model import LastModel
from fedsim.audit.mechanism import Mechanism, mechanism
from fedsim.audit.statistic import Observed
from fedsim.config import Config
from fedsim.core.catalog import find
from fedsim.core.errors import ConfigError
from fedsim.core.files import TensorFile
from fedsim.core.rng import generator
from fedsim.core.secrets import Encoding
from fedsim.core.types import Params
from fedsim.run.training import trained_states
from strategies.tape import recorded_rounds


@dataclass(frozen=True, eq=False, kw_only=True)
class Setup:
    """What one setting is audited with.

    Attributes:
        config: The setting.
        dataset: All records.
        pool: The client's records, among which canaries are looked for.
        others: Auxiliary records, that stand beside a canary in its batch.
        model: Work space.
        states: The weights sent in each round.
        mechanism: What is audited.
        clip: Norm that a record's gradient is clipped to; infinite where none is.
        relation: Which two data sets are told apart.
        encoding: How the attribute in question stands in the inputs; None if a record is in
            question.
        claim: What the mechanism claims.
    """

    config: Config
    dataset: data.Dataset
    pool: Pool
    others: Pool
    model: nn.Module
    states: Sequence[Params]
    mechanism: Mechanism
    clip: float
    relation: Relation
    encoding: Encoding | None
    claim: Claim

    @property
    def observed(self) -> Observed:
        """What is seen of the mechanism."""
        return LastModel(self.mechanism) if self.config.audit.view == "last" else self.mechanism

    @property
    def question(self) -> Question:
        """What is looked for in a record."""
        smoothing = self.mechanism.local.label_smoothing
        return Question(self.model, self.states[0], self.clip, self.encoding, smoothing)


def prepare(config: Config, run: Path | None = None) -> Setup:
    """Load the data, get a model, and find out what is claimed of whom.

    Raises:
        ConfigError: A name, an option or the data are not what they must be.
        BadRecording: The recording is damaged.
    """
    audit, federated = config.audit, _federated(config)
    dataset = federated.dataset
    model = models.build(config.model, dataset.form, seed=config.seed)
    made = _mechanism(config)
    pool, others = _pools(config, federated)
    checks.check_model(model, dataset)
    checks.check_sizes(audit, made, len(others.labels))
    checks.check_claim(audit)
    checks.check_trials_of(audit, made, model, dataset)
    encoding = None if audit.column is None else checks.encoding_of(audit, dataset)
    relation = relation_of(audit, made.defense.promise, encoding)
    checks.check_canaries(audit, dataset, made, relation)
    return Setup(
        config=config,
        dataset=dataset,
        pool=pool,
        others=others,
        model=model,
        mechanism=made,
        clip=clip_of(config.defense, made.local, audit.batch_size),
        relation=relation,
        encoding=encoding,
        claim=claim_of(audit, made, relation),
        states=_states(config, model, federated, run),
    )


def sent_weights(run: Path, rounds: int) -> list[Path]:
    """Return the files of the weights that were sent in the last recorded rounds.

    Raises:
        ConfigError: There are not as many rounds.
    """
    recorded = recorded_rounds(run)
    if len(recorded) < rounds:
        raise ConfigError(
            f"audit.rounds: must be at most the {len(recorded)} rounds of {run}, got {rounds}"
        )
    return [run / "rounds" / f"{number:04d}" / "sent.safetensors" for number in recorded[-rounds:]]


def _federated(config: Config) -> data.Federated:
    """Return the data of one client and the auxiliary records beside it."""
    changes = {
        "federation": config.federation.model_copy(update={"clients": 1}),
        "auxiliary": config.auxiliary.model_copy(update={"share": config.auxiliary.share or 0.1}),
        "data": config.data.model_copy(update={"partition": "iid", "users": None}),
    }
    return data.federate(config.model_copy(update=changes))


def _mechanism(config: Config) -> Mechanism:
    """Return the config's defenses on a client, or the user's own mechanism."""
    audit, local = config.audit, config.local_training()
    if local.optimizer != "sgd":
        raise ConfigError(
            "local.optimizer: must be 'sgd' in an audit, which reads an upload as a sum of "
            f"gradients, got '{local.optimizer}'"
        )
    if local.upload == "gradient":
        local = replace(local, batch_size=audit.batch_size)
    if audit.mechanism is None:
        return mechanism(config.defense, local)
    user = find("audit.mechanism", audit.mechanism, {})
    if config.defense:
        raise ConfigError("audit.mechanism: must stand in place of defenses, got both")
    return replace(mechanism(config.defense, local), user=user, vectorised=False)


def _pools(config: Config, federated: data.Federated) -> tuple[Pool, Pool]:
    """Return candidates for canaries, and the records beside them."""
    rows = federated.clients[0]
    stream = generator(config.seed, "audit candidates")
    candidates = rows[torch.randperm(len(rows), generator=stream)[: config.audit.candidates]]
    return _pool(federated.dataset, candidates), _pool(federated.dataset, federated.auxiliary)


def _pool(dataset: data.Dataset, rows: Tensor) -> Pool:
    return Pool(dataset.inputs[rows], dataset.y[rows], torch.zeros_like(rows))


def _states(
    config: Config, model: nn.Module, federated: data.Federated, run: Path | None
) -> Sequence[Params]:
    """Return the weights of a recording, or those of a model that is trained now."""
    if run is not None:
        return [dict(TensorFile(path)) for path in sent_weights(run, config.audit.rounds)]
    return trained_states(
        model,
        _pool(federated.dataset, federated.clients[0]),
        config.local_training(),
        seed=config.seed,
        steps=config.audit.steps,
        every=config.game.every,
        rounds=config.audit.rounds,
    )
