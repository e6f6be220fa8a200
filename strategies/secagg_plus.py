"""Flower's own secure aggregation, recorded where its server sees it: at the Grid.

SecAgg and SecAgg+ are in Flower's legacy stack only (`SecAggWorkflow`, `SecAggPlusWorkflow`,
`secagg_mod`, `secaggplus_mod`). What a curious server learns of a round is what it can compute from
the messages that pass: here the masked uploads are summed, the masks taken off with the shares that
clients hand out for it, and the mean of the cohort written on tape.

All of Flower that is not public and belongs to that protocol is imported here. Two things an
auditor should know of flwr 1.41, which this recorder makes no use of: every mask is drawn from a
seed that `pseudo_rand_gen` folds to 32 bits, and each client's number of examples and metrics
travel in clear beside its masked upload.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Message
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.serverapp import Grid
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import ConfigError, one_line
from strategies.around import AroundGrid
from strategies.tape import Tape, cohort_name, in_order

Arrays = list[NDArray[Any]]


@dataclass
class _Round:
    """What has passed of one round.

    Attributes:
        facts: The protocol's numbers.
        keys: Node → the public key of its pairwise masks.
        sources: Node → the others with which it shares masks.
        sent: The global arrays, without names.
        masked: The sum of the masked uploads so far.
        uploaded: The nodes that are in it.
    """

    facts: Mapping[str, Any]
    keys: dict[int, bytes] = field(default_factory=dict)
    sources: dict[int, list[int]] = field(default_factory=dict)
    sent: Arrays = field(default_factory=list)
    masked: Arrays = field(default_factory=list)
    uploaded: list[int] = field(default_factory=list)


class SecAggPlusRecording(AroundGrid):
    """A Grid that passes everything through, and puts the sum of each round on tape.

    `workflow(SecAggPlusRecording(grid, tape="runs/mine", names=list(net.state_dict())), context)`.
    A round that the protocol gives up leaves no upload.

    Args:
        grid: Flower's own.
        tape: Where to write; a path makes a tape of every round there.
        names: What the legacy stack's arrays are called in the model's state, in its order.
        client_of: Node id → the client's identity on tape.

    Raises:
        ConfigError: The tape is of some clients only; or, before anybody trains in the first round,
            there are not as many names as arrays.
    """

    def __init__(
        self,
        grid: Grid,
        tape: Tape | Path | str,
        *,
        names: Sequence[str],
        client_of: Callable[[int], str] = str,
    ) -> None:
        self.grid = grid
        self.tape = tape if isinstance(tape, Tape) else Tape(tape)
        if self.tape.record.clients is not None:
            raise ConfigError(
                "record.clients: must be left out with secure aggregation, which shows no client, "
                f"got {list(self.tape.record.clients)}"
            )
        self.names = tuple(names)
        self.client_of = client_of
        self._round: _Round | None = None

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass through, and learn what a server learns."""
        sent = list(messages)
        stage = _stage(sent)
        if stage is not None:
            self._before(stage, sent)
        replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        if stage is not None and self._round is not None:
            answered = [reply for reply in replies if not reply.has_error()]
            self._after(stage, self._round, answered, sent)
        return replies

    def _before(self, stage: str, messages: Sequence[Message]) -> None:
        """Read what is sent; clients in this process take parts out of it."""
        if stage == Stage.SETUP:
            self._round = _Round(dict(_configs(messages[0])))
        if self._round is None or stage != Stage.COLLECT_MASKED_VECTORS:
            return
        for message in messages:
            sources = _configs(message)[Key.SOURCE_LIST]
            self._round.sources[message.metadata.dst_node_id] = list(sources)  # type: ignore[arg-type]
        arrays = next(iter(messages[0].content.array_records.values()))
        if len(arrays) != len(self.names):
            raise ConfigError(
                f"names: must be those of the {len(arrays)} arrays sent, got {len(self.names)}"
            )
        self._round.sent = [array.numpy() for array in arrays.values()]

    def _after(
        self, stage: str, seen: _Round, replies: Sequence[Message], sent: Sequence[Message]
    ) -> None:
        for reply in replies:
            told: Any = _configs(reply)
            if stage == Stage.SETUP:
                seen.keys[reply.metadata.src_node_id] = told[Key.PUBLIC_KEY_1]
            elif stage == Stage.COLLECT_MASKED_VECTORS:
                vector = [bytes_to_ndarray(data) for data in told[Key.MASKED_PARAMETERS]]
                seen.masked = _sum(seen.masked, vector) if seen.masked else vector
                seen.uploaded.append(reply.metadata.src_node_id)
        if stage == Stage.UNMASK:
            self._round = None
            self._write(int(sent[0].metadata.group_id), seen, replies)

    def _write(self, round_: int, seen: _Round, replies: Sequence[Message]) -> None:
        """Take the masks off and write the round, or say why it cannot be."""
        if not self.tape.keeps(round_):
            return
        try:
            mean, num_examples = _mean(seen, _secrets(replies, int(seen.facts[Key.THRESHOLD])))
        except ValueError as error:
            logging.getLogger("flwr").warning("round %d: not on tape (%s)", round_, one_line(error))
            return
        members = in_order(self.client_of(node) for node in seen.uploaded)
        self.tape.write_sent(round_, self._named(seen.sent))
        self.tape.write_upload(
            round_, cohort_name(members), self._named(mean), num_examples, "weights", members
        )

    def _named(self, arrays: Arrays) -> dict[str, Tensor]:
        both = zip(self.names, arrays, strict=True)
        return {name: torch.from_numpy(np.array(array)) for name, array in both}


def _mean(seen: _Round, secrets: Mapping[int, bytes]) -> tuple[Arrays, int]:
    """Return the weighted mean of the uploads, and the sum of their numbers of examples.

    Raises:
        ValueError: A mask cannot be taken off, or the weights are all 0.
    """
    told, shapes = seen.facts, [array.shape for array in seen.masked]
    modulus, target = int(told[Key.MOD_RANGE]), int(told[Key.TARGET_RANGE])
    uploaded, total = set(seen.uploaded), seen.masked

    def secret_of(node: int) -> bytes:
        if node not in secrets:
            raise ValueError(f"shares: must suffice for node {node}, got fewer")
        return secrets[node]

    for node in seen.uploaded:
        total = _sum(total, pseudo_rand_gen(secret_of(node), modulus, shapes), -1)
        for gone in (other for other in seen.sources[node] if other not in uploaded):
            private = bytes_to_private_key(secret_of(gone))
            shared = generate_shared_key(private, bytes_to_public_key(seen.keys[node]))
            mask = pseudo_rand_gen(shared, modulus, shapes)
            total = _sum(total, mask, -1 if node > gone else 1)
    weight, *numbers = (array & (modulus - 1) for array in total)
    if (ratio := int(weight[0])) < 1:
        raise ValueError(f"num_examples: must add up to more than 0, got {ratio}")
    clip = float(told[Key.CLIPPING_RANGE])
    count = len(seen.uploaded)
    # Each client adds clip to every entry, to have no negative numbers.
    means = [(array * (2 * clip / target) - count * clip) * (target / ratio) for array in numbers]
    return means, round(ratio / target * float(told[Key.MAX_WEIGHT]))


def _secrets(replies: Sequence[Message], threshold: int) -> dict[int, bytes]:
    """Return each node's secret that enough shares were handed out of."""
    shares: dict[int, list[bytes]] = {}
    for reply in replies:
        told: Any = _configs(reply)
        for node, share in zip(told[Key.NODE_ID_LIST], told[Key.SHARE_LIST], strict=True):
            shares.setdefault(node, []).append(share)
    return {
        node: combine_shares(parts) for node, parts in shares.items() if len(parts) >= threshold
    }


def _sum(left: Arrays, right: Arrays, sign: int = 1) -> Arrays:
    return [a + sign * b for a, b in zip(left, right, strict=True)]


def _stage(messages: Sequence[Message]) -> str | None:
    """Return the protocol's stage that messages are of; None where they are of none."""
    if not messages or RECORD_KEY_CONFIGS not in messages[0].content.config_records:
        return None
    return str(_configs(messages[0])[Key.STAGE])


def _configs(message: Message) -> ConfigRecord:
    return message.content.config_records[RECORD_KEY_CONFIGS]
