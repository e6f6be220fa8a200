"""The Flower ClientApp: decode, train, defend, encode. The same in every engine."""

import logging
import sys
from pathlib import Path

import torch
from flwr.app import ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients import carried
from clients.fidelity import fidelity
from clients.operator import SIMULATED, Operator, Refused, Site, operator, site
from clients.train import train
from defenses import Defense, defend
from defenses.promise import Relation
from fedsim.core.errors import one_line
from fedsim.core.files import save_tensors
from fedsim.core.params import cast_like, subtract
from fedsim.core.rng import generator, global_stream
from fedsim.core.types import LocalTraining
from fedsim.core.wire import ARRAYS, CONFIG, FEDSIM, METRICS, NUM_EXAMPLES, from_record, to_record
from strategies.secure import masked_reply

app = ClientApp()

TRUTH = "truth"  # in the node's own config: the folder for its ground truth
DEFENSE = "defense"  # in the node's own state: what its defenses remember
CANARY = "canary"  # there too: its canaries' coins, where no seed gives them again
COINS = "coins"
WITHHELD = 450  # the Error's code: nothing is uploaded


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train on this client's data and upload the defended result.

    Nothing else is uploaded but the number of examples: no loss, no accuracy. A client between
    real machines that cannot answer says why in its own log; the server is told what its operator
    refuses, and of any other failure only the kind: its text may quote data.
    """
    simulated = _simulated_by_flower()
    try:
        own = operator(context.node_config, simulated=simulated)
        return _answer(message, context, own)
    except Exception as error:
        if simulated or context.node_config.get(SIMULATED):
            raise
        logging.getLogger("flwr").exception("no upload")
        reason = one_line(error)
        if not isinstance(error, Refused):
            reason = f"{type(error).__name__}: its node's log says why"
        return Message(Error(WITHHELD, reason), reply_to=message)


def _answer(message: Message, context: Context, own: Operator) -> Message:
    """Return the reply to a train message."""
    sent = from_record(message.content.array_records[ARRAYS])
    instructions = message.content.config_records[CONFIG]
    here = site(str(instructions[FEDSIM]), own)
    config, round_ = here.config, int(str(instructions["server-round"]))
    client = own.client
    if torch.get_num_threads() != config.engine.threads:
        torch.set_num_threads(config.engine.threads)  # sums depend on it: one value everywhere
    rows = here.rows(client)
    dataset, names = here.federated.dataset, ("train", client, round_)
    local = config.local_training(float(str(instructions.get("proximal-mu", 0.0))))
    carries, coins = _canary(here, own, context)
    inputs, labels, batches = dataset.inputs[rows], dataset.labels[rows], here.defense.batches
    if carries == carried.RECORD:
        whose = config.seed, client
        inputs, labels = carried.beside(inputs, labels, dataset.num_classes, len(coins), *whose)
        batches = carried.without_absent(batches, torch.cat([coins.new_ones(len(rows)), coins]))

    def trained_with(defense: Defense | None) -> tuple[dict[str, Tensor], Tensor]:
        order = generator(config.seed, *names)
        if defense and (defense.gradient is not None or defense.batches is not None):
            order = own.coins(config.seed, *names)  # they hide what the batches' order does not
        count = len(labels) if defense else len(rows)  # undefended without any canary
        with global_stream(config.seed, *names, "dropout"):
            return train(
                here.model, sent, inputs[:count], labels[:count], local, generator=order,
                gradient=defense and defense.gradient, batches=batches if defense else None,
            )  # fmt: skip

    remembered = _remembered(here, sent, context, local, len(labels))
    if carries == carried.UPDATE:
        start = cast_like(sent, here.model.state_dict())
        trained, used = (
            carried.uploaded(
                start, here.trainable, config, client=client, round_=round_, coin=bool(coins)
            ),
            labels.new_zeros(0),
        )
    else:
        trained, used = trained_with(here.defense)
    upload, update = _defended(here, trained, sent, context, remembered, own, round_=round_)
    folder = _truth_folder(context) if config.record.keeps(round_, client) else None
    if folder:
        told = {}
        if config.defense and carries != carried.UPDATE:
            plain = trained if here.defense.gradient is None else trained_with(None)[0]
            told = fidelity(update, _update(plain, sent, here, local))
        # Rows of a folder of the client's own mean nothing to anybody else.
        known = used[: 0 if here.own_data else None]
        truth = {"labels": labels[used], "indices": rows[known[known < len(rows)]]}
        if carries:
            truth[COINS] = coins.to(torch.uint8)
        path = folder / f"{round_:04d}" / f"{client}.safetensors"
        save_tensors(path, truth, {"round": round_, "client": client, **told})
    # With weights it is the client's size; a gradient weighs as much as its batch, or as the batch
    # is expected to be where a defense keeps its size secret.
    num_examples = len(labels) if local.upload == "weights" else len(used)
    if local.upload == "gradient" and (carries or here.defense.batches is not None):
        num_examples = min(local.batch_size, len(labels))
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


def _canary(here: Site, own: Operator, context: Context) -> tuple[Relation | None, Tensor]:
    """Return what this client carries in an audited run, and its coins: the same in every round."""
    carries = (
        carried.relation_of(here.config.audit, here.defense, own.client) if own.consents else None
    )
    if carries is None:
        return None, torch.zeros(0, dtype=torch.bool)
    if CANARY in context.state.array_records:
        return carries, from_record(context.state.array_records[CANARY])[COINS].bool()
    count = carried.num_coins(here.config.audit, here.defense, own.client)
    drawn = carried.tossed(count, own.coins(here.config.seed, "canary coin", own.client))
    if not own.repeats:
        context.state[CANARY] = to_record({COINS: drawn.to(torch.uint8)})
    return carries, drawn


def _remembered(
    here: Site,
    sent: dict[str, Tensor],
    context: Context,
    local: LocalTraining,
    num_examples: int,
) -> dict[str, Tensor]:
    """Return what the client's defenses remember in the node's context, this round counted.

    Raises:
        Refused: A privacy budget is spent.
    """
    stored = context.state.array_records.get(DEFENSE)
    if stored is None:
        state = here.defense.init({name: sent[name] for name in here.trainable})
    else:
        state = from_record(stored)
    try:
        return here.defense.spend(state, local, num_examples)
    except ValueError as error:
        raise Refused(one_line(error)) from None


def _defended(
    here: Site,
    trained: dict[str, Tensor],
    sent: dict[str, Tensor],
    context: Context,
    remembered: dict[str, Tensor],
    own: Operator,
    *,
    round_: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Apply the client's defenses and keep what they remember in the node's context.

    Returns:
        What is uploaded, and the defended update in it.
    """
    if not here.config.defense:
        return trained, {}
    upload, state, update = defend(
        here.defense, trained, sent, here.trainable, remembered,
        generator=own.coins(here.config.seed, "defense", own.client, round_),
        upload=here.config.local_training().upload,
    )  # fmt: skip
    if state:
        context.state[DEFENSE] = to_record(state)
    return upload, update


def _update(
    trained: dict[str, Tensor], sent: dict[str, Tensor], here: Site, local: LocalTraining
) -> dict[str, Tensor]:
    theirs = {name: trained[name] for name in here.trainable}
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
