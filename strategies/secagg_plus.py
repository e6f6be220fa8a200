"""Flower's own secure aggregation, recorded where its server sees it: at the Grid.

SecAgg and SecAgg+ are in Flower's legacy stack only (`SecAggWorkflow`, `SecAggPlusWorkflow`,
`secagg_mod`, `secaggplus_mod`). What a curious server learns of a round is what it can compute from
the messages that pass: here the masked uploads are summed, the masks taken off with the shares that
clients hand out for it, and the mean of the cohort written on tape.

Two things an auditor should know of flwr 1.41, which this recorder makes no use of: every mask is
drawn from a seed that `pseudo_rand_gen` folds to 32 bits, and each client's number of examples and
metrics travel in clear beside its masked upload.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import Tensor

from fedsim.core.errors import ConfigError, FedsimError, one_line, plain
from strategies.around import AroundGrid
from strategies.flower_private import SECAGG
from strategies.tape import Tape, cohort_name, in_order

Arrays = list[NDArray[Any]]


@dataclass(kw_only=True)
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
        MissingPiece: This version of Flower has another protocol.
    """

    def __init__(
        self,
        grid: Grid,
        tape: Tape | Path | str,
        *,
        names: Sequence[str],
        client_of: Callable[[int], str] = str,
    ) -> None:
        SECAGG.check()
        self._stages = SECAGG.get("Stage")
        self._key = SECAGG.get("Key")
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
            with self._giving_up():
                self._before(stage, sent)
        replies = list(self.grid.send_and_receive(sent, timeout=timeout))
        if stage is not None and self._round is not None:
            answered = [reply for reply in replies if not reply.has_error()]
            with self._giving_up():
                self._after(stage, self._round, answered, sent)
        return replies

    @contextmanager
    def _giving_up(self) -> Iterator[None]:
        """Leave a round off the tape that cannot be read; the app goes on as without a recorder."""
        try:
            yield
        except (FedsimError, OSError):
            raise
        except Exception as error:
            self._round = None
            logging.getLogger("flwr").warning("round not on tape (%s)", plain(repr(error)))

    def _before(self, stage: str, messages: Sequence[Message]) -> None:
        """Read what is sent; clients in this process take parts out of it."""
        if stage == self._stages.SETUP:
            self._round = _Round(facts=dict(_configs(messages[0])))
        if self._round is None or stage != self._stages.COLLECT_MASKED_VECTORS:
            return
        for message in messages:
            sources = _configs(message)[self._key.SOURCE_LIST]
            self._round.sources[message.metadata.dst_node_id] = list(sources)  # type: ignore[arg-type]
        arrays = next(iter(messages[0].content.array_records.values()))
        if len(arrays) != len(self.names):
            raise ConfigError(
                f"names: must be those of the {len(arrays)} arrays sent, got {len(self.names)}"
            )
        self._round.sent = [array.numpy() for array in arrays.values()]

    def _after(
        self, stage: str, passed: _Round, replies: Sequence[Message], sent: Sequence[Message]
    ) -> None:
        decode = SECAGG.get("bytes_to_ndarray")
        for reply in replies:
            values: Any = _configs(reply)
            if stage == self._stages.SETUP:
                passed.keys[reply.metadata.src_node_id] = values[self._key.PUBLIC_KEY_1]
            elif stage == self._stages.COLLECT_MASKED_VECTORS:
                vector = [decode(data) for data in values[self._key.MASKED_PARAMETERS]]
                passed.masked = _sum(passed.masked, vector) if passed.masked else vector
                passed.uploaded.append(reply.metadata.src_node_id)
        if stage == self._stages.UNMASK:
            self._round = None
            self._write(int(sent[0].metadata.group_id), passed, replies)

    def _write(self, round_: int, passed: _Round, replies: Sequence[Message]) -> None:
        """Take the masks off and write the round, or say why it cannot be."""
        if not self.tape.keeps(round_):
            return
        try:
            threshold = int(passed.facts[self._key.THRESHOLD])
            mean, num_examples = _mean(passed, _secrets(replies, threshold))
        except ValueError as error:
            logging.getLogger("flwr").warning("round %d: not on tape (%s)", round_, one_line(error))
            return
        members = in_order(self.client_of(node) for node in passed.uploaded)
        self.tape.begin(round_)
        self.tape.write_sent(round_, self._named(passed.sent))
        self.tape.write_upload(
            round_, cohort_name(members), self._named(mean), num_examples, "weights", members
        )
        self.tape.finish(round_)

    def _named(self, arrays: Arrays) -> dict[str, Tensor]:
        pairs = zip(self.names, arrays, strict=True)
        return {name: torch.from_numpy(np.array(array)) for name, array in pairs}


def _mean(passed: _Round, secrets: Mapping[int, bytes]) -> tuple[Arrays, int]:
    """Return the weighted mean of the uploads, and the sum of their numbers of examples.

    Raises:
        ValueError: A mask cannot be taken off, or the weights are all 0.
    """
    key, facts, draw = SECAGG.get("Key"), passed.facts, SECAGG.get("pseudo_rand_gen")
    shapes = [array.shape for array in passed.masked]
    modulus, target = int(facts[key.MOD_RANGE]), int(facts[key.TARGET_RANGE])
    uploaded, total = set(passed.uploaded), passed.masked

    def secret_of(node: int) -> bytes:
        if node not in secrets:
            raise ValueError(f"shares: must suffice for node {node}, got fewer")
        return secrets[node]

    for node in passed.uploaded:
        total = _sum(total, draw(secret_of(node), modulus, shapes), -1)
        for gone in (other for other in passed.sources[node] if other not in uploaded):
            mask = draw(_shared(secret_of(gone), passed.keys[node]), modulus, shapes)
            total = _sum(total, mask, -1 if node > gone else 1)
    weight, *numbers = (array & (modulus - 1) for array in total)
    if (ratio := int(weight[0])) < 1:
        raise ValueError(f"num_examples: must add up to more than 0, got {ratio}")
    clip = float(facts[key.CLIPPING_RANGE])
    count = len(passed.uploaded)
    # Each client adds clip to every entry, to have no negative numbers.
    means = [(array * (2 * clip / target) - count * clip) * (target / ratio) for array in numbers]
    return means, round(ratio / target * float(facts[key.MAX_WEIGHT]))


def _shared(secret: bytes, public: bytes) -> bytes:
    """Return the seed of a pairwise mask, from one node's secret and the other's public key."""
    private = SECAGG.get("private_key")(secret)
    return SECAGG.get("generate_shared_key")(private, SECAGG.get("public_key")(public))


def _secrets(replies: Sequence[Message], threshold: int) -> dict[int, bytes]:
    """Return each node's secret that enough shares were handed out of."""
    key, combine = SECAGG.get("Key"), SECAGG.get("combine_shares")
    shares: dict[int, list[bytes]] = {}
    for reply in replies:
        values: Any = _configs(reply)
        for node, share in zip(values[key.NODE_ID_LIST], values[key.SHARE_LIST], strict=True):
            shares.setdefault(node, []).append(share)
    return {node: combine(parts) for node, parts in shares.items() if len(parts) >= threshold}


def _sum(left: Arrays, right: Arrays, sign: int = 1) -> Arrays:
    return [a + sign * b for a, b in zip(left, right, strict=True)]


def _stage(messages: Sequence[Message]) -> str | None:
    """Return the protocol's stage that messages are of; None where they are of none."""
    if not messages or SECAGG.get("RECORD_KEY_CONFIGS") not in messages[0].content.config_records:
        return None
    return str(_configs(messages[0])[SECAGG.get("Key").STAGE])


def _configs(message: Message) -> ConfigRecord:
    return message.content.config_records[SECAGG.get("RECORD_KEY_CONFIGS")]
