"""The Flower ClientApp: decode, train, defend, encode. The same in every engine."""

import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor, nn

import defenses
from clients.fidelity import fidelity
from clients.train import train
from defenses import Defense, defend
from fedsim import data, models
from fedsim.config import Config, parse_json
from fedsim.files import save_tensors
from fedsim.params import subtract
from fedsim.rng import generator, global_stream
from fedsim.types import LocalTraining
from fedsim.wire import ARRAYS, CONFIG, FEDSIM, METRICS, NUM_EXAMPLES, from_record, to_record
from strategies.secure import masked_reply

app = ClientApp()

TRUTH = "truth"  # in the node's own config: the folder for its ground truth
DEFENSE = "defense"  # in the node's own state: what its defenses remember


@dataclass(frozen=True)
class _Site:
    """What every client of one run shares within a process."""

    config: Config
    federated: data.Federated
    model: nn.Module
    trainable: tuple[str, ...]
    defense: Defense


@lru_cache(maxsize=1)
def _site(text: str) -> _Site:
    config = parse_json(text)
    federated = data.federate(config)
    dataset = federated.dataset
    model = models.build(config, dataset.input_shape, dataset.num_classes)
    return _Site(config, federated, model, models.trainable(model), defenses.build(config.defense))


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train on this client's data and upload the defended result.

    Nothing else is uploaded but the number of examples: no loss, no accuracy.
    """
    sent = from_record(message.content.array_records[ARRAYS])
    instructions = message.content.config_records[CONFIG]
    site = _site(str(instructions[FEDSIM]))
    config, round_ = site.config, int(str(instructions["server-round"]))
    client = str(context.node_config["partition-id"])
    if torch.get_num_threads() != config.engine.threads:
        torch.set_num_threads(config.engine.threads)  # sums depend on it: one value everywhere
    rows = site.federated.clients[int(client)]
    dataset, names = site.federated.dataset, (config.seed, "train", client, round_)
    local = config.local_training(float(str(instructions.get("proximal-mu", 0.0))))
    inputs, labels = dataset.inputs[rows], dataset.labels[rows]

    def trained_with(defense: Defense | None) -> tuple[dict[str, Tensor], Tensor]:
        with global_stream(*names, "dropout"):
            return train(
                site.model, sent, inputs, labels, local, generator=generator(*names),
                gradient=defense and defense.gradient, batches=defense and defense.batches,
            )  # fmt: skip

    remembered = _remembered(site, sent, context, local, len(rows))
    trained, used = trained_with(site.defense)
    upload, update = _defended(
        site, trained, sent, context, remembered, round_=round_, client=client
    )
    folder = _truth_folder(context) if config.record.keeps(round_, client) else None
    if folder:
        told = {}
        if config.defense:
            plain = trained if site.defense.gradient is None else trained_with(None)[0]
            told = fidelity(update, _update(plain, sent, site, local))
        truth = {"labels": labels[used], "indices": rows[used]}
        path = folder / f"{round_:04d}" / f"{client}.safetensors"
        save_tensors(path, truth, {"round": round_, "client": client, **told})
    # With weights it is the client's size; a gradient weighs as much as its batch, or as the batch
    # is expected to be where a defense keeps its size secret.
    num_examples = len(rows) if local.upload == "weights" else len(used)
    if local.upload == "gradient" and site.defense.batches is not None:
        num_examples = min(local.batch_size, len(rows))
    if config.federation.secure_aggregation:
        secret = config.seed
        hidden = masked_reply(message, upload, num_examples, context.node_id, secret)
        return Message(hidden, reply_to=message)
    reply = {ARRAYS: to_record(upload), METRICS: MetricRecord({NUM_EXAMPLES: num_examples})}
    return Message(RecordDict(reply), reply_to=message)


@app.query()
def query_client(message: Message, context: Context) -> Message:
    """Say which client this node is."""
    number = str(context.node_config["partition-id"])
    return Message(RecordDict({CONFIG: ConfigRecord({"client": number})}), reply_to=message)


def _remembered(
    site: _Site,
    sent: dict[str, Tensor],
    context: Context,
    local: LocalTraining,
    num_examples: int,
) -> dict[str, Tensor]:
    """Return what the client's defenses remember in the node's context, this round counted.

    Raises:
        ValueError: A privacy budget is spent.
    """
    stored = context.state.array_records.get(DEFENSE)
    if stored is None:
        state = site.defense.init({name: sent[name] for name in site.trainable})
    else:
        state = from_record(stored)
    return site.defense.spend(state, local, num_examples)


def _defended(
    site: _Site,
    trained: dict[str, Tensor],
    sent: dict[str, Tensor],
    context: Context,
    remembered: dict[str, Tensor],
    *,
    round_: int,
    client: str,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Apply the client's defenses and keep what they remember in the node's context.

    Returns:
        What is uploaded, and the defended update in it.
    """
    if not site.config.defense:
        return trained, {}
    upload, state, update = defend(
        site.defense, trained, sent, site.trainable, remembered,
        generator=generator(site.config.seed, "defense", client, round_),
        upload=site.config.local_training().upload,
    )  # fmt: skip
    if state:
        context.state[DEFENSE] = to_record(state)
    return upload, update


def _update(
    trained: dict[str, Tensor], sent: dict[str, Tensor], site: _Site, local: LocalTraining
) -> dict[str, Tensor]:
    theirs = {name: trained[name] for name in site.trainable}
    return theirs if local.upload == "gradient" else subtract(theirs, sent)


def _truth_folder(context: Context) -> Path | None:
    """Return where the ground truth goes: beside the run, never into the reply.

    In fedsim's engines the node's own config says where. Under `flwr run` nodes cannot be given
    one, so a client that runs inside Flower's simulation (a Ray worker) takes the run's folder;
    a deployed client is no Ray worker and writes only where its operator says.
    """
    folder = str(context.node_config.get(TRUTH, ""))
    if not folder and _simulated_by_flower() and context.run_config.get("out"):
        return Path(str(context.run_config["out"])) / "truth"
    return Path(folder) if folder else None


def _simulated_by_flower() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
