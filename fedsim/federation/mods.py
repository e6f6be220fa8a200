"""In a Flower app of one's own: defenses as mods of its ClientApp, and the truth kept beside it."""

from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path

import torch
from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from jaxtyping import Int
from torch import Tensor

from defenses.defense import Defense, defend, spends_nothing
from fedsim.core.errors import one_line
from fedsim.core.rng import generator, secret_generator
from fedsim.core.truths import save_own
from fedsim.core.types import Upload
from fedsim.core.wire import from_record, to_record

Next = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, Next], Message]

FAILED = 451  # the Error's code: the upload was withheld
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

_depth: ContextVar[int] = ContextVar("depth", default=0)


def as_mod(
    defense: Defense, *, upload: Upload = "weights", buffers: bool = False, seed: int | None = None
) -> Mod:
    """Return a Flower mod that applies a defense to the arrays of every train reply.

    `ClientApp(mods=[as_mod(chain(clip(bound=1.0), gaussian(std=0.1)))])`. Flower's outermost mod
    touches the upload last: of stacked ones, the last in the list defends first. Integers and
    batch statistics (`running_mean`, …) are uploaded as they are. Whatever goes wrong, the client
    uploads an error and never the undefended update. Whatever else the reply holds, such as
    metrics, is not looked at.

    Args:
        defense: On the update; one that works inside training needs fedsim's own client.
        upload: Whether the app uploads trained weights, which are defended as their difference
            to those received, or a gradient.
        buffers: Defend floating-point batch statistics too.
        seed: Of the defense's coins. Without one every upload has new ones from the system's
            entropy; give one only to repeat an experiment, because who knows it can take the noise
            off.

    Raises:
        ValueError: The defense works inside training, or keeps a budget.
    """
    _check_on_update(defense)

    def mod(message: Message, context: Context, call_next: Next) -> Message:
        if message.metadata.message_type.split(".")[0] != "train":
            return call_next(message, context)
        reply, place = _reply_below(message, context, call_next)
        if reply.has_error():
            return reply
        try:
            key = f"fedsim-defense-{place}"
            stream = _stream(message, context, key, seed)
            _defend(defense, message, reply, context, key, stream, upload=upload, buffers=buffers)
        except Exception as error:  # fail closed, whatever it was
            reason = f"defense {defense.name}: upload withheld ({one_line(error)})"
            return Message(Error(FAILED, reason), reply_to=message)
        return reply

    return mod


def keep_truth(
    folder: Path | str, message: Message, context: Context, labels: Int[Tensor, " uses"]
) -> Path:
    """Write the labels that a client trained on in a round, for `fedsim attack TAPE --truth DIR`.

    To be called where the labels are, in the app's train function. They stay on this machine's disk
    and go into no reply; only the grader reads them.

    The node's id stands for the client, as it does on the tape of `Recording` without `client_of`.

    Args:
        folder: Of this machine; not the run's.
        message: The train message, which tells the round.
        context: The client's, which tells the node.
        labels: One for every use of an example: with three epochs each label three times.

    Returns:
        The file.

    Raises:
        ValueError: The message tells no round, or the labels are no whole numbers.
    """
    if labels.ndim != 1 or labels.is_floating_point():
        raise ValueError(
            f"labels: must be whole numbers, one a use, got shape {tuple(labels.shape)} "
            f"of {labels.dtype}"
        )
    if (round_ := _round(message)) is None:
        raise ValueError("message: must hold its server-round, got none")
    client = str(context.node_id)
    return save_own(Path(folder), int(round_), client, {"labels": labels.cpu()}, {})


def _check_on_update(defense: Defense) -> None:
    inside = defense.gradient is not None or defense.batches is not None
    if inside or defense.spend is not spends_nothing:
        raise ValueError(
            f"as_mod: must be a defense on the update, got {defense.name}, which works inside "
            "training; use fedsim's client"
        )


def _reply_below(message: Message, context: Context, call_next: Next) -> tuple[Message, int]:
    """Return the reply of the mods and the app below, and how many mods stand above this one."""
    place = _depth.get()
    token = _depth.set(place + 1)
    try:
        return call_next(message, context), place
    finally:
        _depth.reset(token)


def _defend(
    defense: Defense,
    message: Message,
    reply: Message,
    context: Context,
    key: str,
    stream: torch.Generator,
    *,
    upload: Upload,
    buffers: bool,
) -> None:
    """Replace the arrays of a reply by defended ones, and keep what the defense remembers."""
    name, record = _only(reply.content, "uploaded")
    _, received = _only(message.content, "received")
    trained, sent = from_record(record), from_record(received)
    names = [n for n, value in trained.items() if _is_parameter(n, value, buffers=buffers)]
    if not names:
        raise ValueError("arrays: must hold floating-point parameters, got none")
    missing = [n for n in names if n not in sent or sent[n].shape != trained[n].shape]
    if missing and upload == "weights":
        raise ValueError(f"arrays: must have the names and shapes received, got '{missing[0]}'")
    origin = sent if upload == "weights" else trained
    remembered = context.state.array_records.get(key)
    memory = from_record(remembered) if remembered else {}
    defended = defend(defense, trained, origin, names, memory, generator=stream, upload=upload)
    arrays: dict[str, Array] = {**record}
    arrays |= to_record({n: defended.upload[n] for n in names})
    reply.content[name] = ArrayRecord(arrays)
    if defended.state:
        context.state[key] = to_record(defended.state)


def _only(content: RecordDict, what: str) -> tuple[str, ArrayRecord]:
    records = list(content.array_records.items())
    if len(records) != 1:
        raise ValueError(f"{what}: must be one ArrayRecord, got {len(records)}")
    return records[0]


def _is_parameter(name: str, value: Tensor, *, buffers: bool) -> bool:
    if value.is_complex():
        raise ValueError(f"arrays: must be real, got {name} of {value.dtype}")
    return value.is_floating_point() and (buffers or name.rpartition(".")[2] not in STATISTICS)


def _stream(message: Message, context: Context, key: str, seed: int | None) -> torch.Generator:
    """Return new coins; with a seed those of this node, round and place among the stacked mods.

    They must not repeat: the server chooses the rounds' numbers, and of two uploads with the same
    noise the difference is clean. Without a round in the message, its own id stands for it.
    """
    if seed is None:
        return secret_generator()
    round_ = _round(message) or message.metadata.message_id or "none"
    client = context.node_config.get("partition-id", context.node_id)
    return generator(seed, key, str(client), round_)


def _round(message: Message) -> str | None:
    """Return the round that a message is of, where it says so."""
    configs = message.content.config_records.values()
    return next((str(c["server-round"]) for c in configs if "server-round" in c), None)
