"""The Flower ClientApp: decode, respond, encode. The same in every engine."""

import logging
import sys
from pathlib import Path

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.operator import SIMULATED, Operator, Refused, operator
from clients.respond import COINS, respond
from clients.site import site
from clients.task import Response, Task
from fedsim.core.errors import one_line
from fedsim.core.truths import save_own
from fedsim.core.wire import (
    ARRAYS,
    BASE,
    CONFIG,
    FEDSIM,
    METRICS,
    NUM_EXAMPLES,
    content_of,
    facts_of,
    filled,
    from_record,
    held_record,
    metrics_of,
    records_of,
    to_record,
)
from strategies.secure import masked_reply

app = ClientApp()

TRUTH = "truth"  # in the node's own config: the folder for its ground truth; in its state: that
FACTS = "truth-facts"  # in its state: the round of the truth, and what its defenses cost
COLLECTED = "truth-collected"  # in its config: that somebody takes its truth from its state
DEFENSE = "defense"  # in the node's own state: what its defenses remember
CANARY = "canary"  # there too: its canaries' coins, if no seed gives them again
WITHHELD = 450  # the Error's code: nothing is uploaded


@app.train()
def train_client(message: Message, context: Context) -> Message:
    """Train on this client's data and upload the defended result.

    Nothing else is uploaded but the number of examples: no loss, no accuracy. A deployed client
    that cannot answer gives the reason in its own log. The server gets the reason of an operator's
    refusal, and of any other failure only the kind: its text may quote data.
    """
    simulated = _simulated_by_flower()
    try:
        return _answer(message, context, operator(context.node_config, simulated=simulated))
    except Exception as error:
        if simulated or context.node_config.get(SIMULATED):
            raise
        logging.getLogger("flwr").exception("no upload")
        reason = one_line(error)
        if not isinstance(error, Refused):
            reason = f"{type(error).__name__}: its node's log says why"
        return Message(Error(WITHHELD, reason), reply_to=message)


@app.query()
def query_client(message: Message, context: Context) -> Message:
    """Say which client this node is."""
    number = str(context.node_config["partition-id"])
    return Message(RecordDict({CONFIG: ConfigRecord({"client": number})}), reply_to=message)


def _answer(message: Message, context: Context, node: Operator) -> Message:
    """Return the reply to a train message, and keep what the client remembers and its truth."""
    task = task_of(
        message, context, node, from_record(records_of(message.content, ArrayRecord)[ARRAYS])
    )
    return reply_of(message, context, task, respond(task))


def task_of(message: Message, context: Context, node: Operator, sent: dict[str, Tensor]) -> Task:
    """Return what a train message asks of a client.

    Args:
        message: From the server.
        context: The node's.
        node: Its operator's settings.
        sent: The arrays of the message.

    Raises:
        Refused: The operator does not let the run have what it asks for.
        ConfigError: The config or the data are not what they must be.
    """
    instructions = records_of(message.content, ConfigRecord)[CONFIG]
    run = site(str(instructions[FEDSIM]), node)
    if str(instructions.get(BASE, "")) != run.base:
        raise Refused("model: must have the frozen parameters that the server's has, got others")
    threads = run.config.engine.threads
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)  # sums depend on it: one value everywhere
    round_ = int(str(instructions["server-round"]))
    state = records_of(context.state, ArrayRecord)
    memory, coins = state.get(DEFENSE), state.get(CANARY)
    return Task(
        site=run,
        operator=node,
        sent=sent,
        round=round_,
        proximal_mu=float(str(instructions.get("proximal-mu", 0.0))),
        memory=None if memory is None else from_record(memory),
        coins=None if coins is None else from_record(coins)[COINS],
        with_truth=_keeps_truth(context) and run.config.record.keeps(round_, node.client),
    )


def reply_of(message: Message, context: Context, task: Task, response: Response) -> Message:
    """Return the reply to a train message, and keep what the client remembers and its truth."""
    _remember(context, response, task.operator)
    if task.with_truth:
        _keep_truth(context, task, response)
    return Message(_content(message, context, response, task), reply_to=message)


def _keep_truth(context: Context, task: Task, response: Response) -> None:
    """Put the truth beside the run, never into the reply."""
    folder = _truth_folder(context)
    if folder is not None:
        save_own(folder, task.round, task.client, response.truth, response.fidelity)
        return
    facts = facts_of({"round": task.round, **response.fidelity})
    filled(context.state, {TRUTH: held_record(response.truth), FACTS: facts})


def _remember(context: Context, response: Response, node: Operator) -> None:
    """Keep in the node's context what the client needs in its next round."""
    if response.memory:
        context.state[DEFENSE] = to_record(response.memory)
    if response.coins is not None and not node.repeats:
        context.state[CANARY] = to_record({COINS: response.coins.to(torch.uint8)})


def _content(message: Message, context: Context, response: Response, task: Task) -> RecordDict:
    """Return what is uploaded, masked under secure aggregation."""
    run = task.site
    if run.config.federation.secure_aggregation:
        return masked_reply(
            message, response.upload, response.num_examples, context.node_id, run.config.seed
        )
    metrics = metrics_of({NUM_EXAMPLES: response.num_examples})
    encode = held_record if task.operator.simulated else to_record
    return content_of({ARRAYS: encode(response.upload), METRICS: metrics})


def _truth_folder(context: Context) -> Path | None:
    """Return where the client writes its ground truth by itself.

    A deployed node's own config names the folder. Under `flwr run` nodes cannot be given one, so
    a client inside Flower's simulation (a Ray worker) takes the run's folder. A deployed client is
    no Ray worker and writes only where its operator says.
    """
    folder = str(context.node_config.get(TRUTH, ""))
    if not folder and context.run_config.get("out") and _simulated_by_flower():
        return Path(str(context.run_config["out"])) / "truth"
    return Path(folder) if folder else None


def _keeps_truth(context: Context) -> bool:
    return bool(context.node_config.get(COLLECTED)) or _truth_folder(context) is not None


def _simulated_by_flower() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
