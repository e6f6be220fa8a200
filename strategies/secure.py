"""Secure aggregation, simulated: the server learns the weighted sum of a round and nothing else.

What it does, and what it takes from the papers, stands in `strategies.masking`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsim.core.errors import ConfigError, RunStopped, plain
from fedsim.core.types import Params
from fedsim.core.wire import METRICS, NUM_EXAMPLES, from_record, oversized, to_record
from strategies import masking
from strategies.around import AroundStrategy, check_strategy
from strategies.masking import Protocol
from strategies.senders import Senders, reason_of
from strategies.sent import Sent, key_of

SECURE = "secure-aggregation"  # the ConfigRecord of a train message, the ArrayRecord of its reply
NUMBERS = "numbers"

# They look at each upload by itself: distances, order statistics, losses or norms.
SINGLE = (
    flower.Bulyan,
    flower.DifferentialPrivacyClientSideAdaptiveClipping,
    flower.DifferentialPrivacyServerSideAdaptiveClipping,
    flower.DifferentialPrivacyServerSideFixedClipping,
    flower.FedMedian,
    flower.FedTrimmedAvg,
    flower.FedXgbBagging,
    flower.FedXgbCyclic,
    flower.Krum,
    flower.MultiKrum,
    flower.QFedAvg,
)


@dataclass(frozen=True)
class Sum:
    """All that the server learns of a round.

    Attributes:
        mean: The weighted mean of the uploads, float64; empty where there was nobody to ask.
        num_examples: The sum of their weights.
        members: The nodes whose uploads are in it.
        failures: Node and reason of the others.
    """

    mean: Params
    num_examples: int
    members: Sequence[int]
    failures: Sequence[tuple[int, str]] = field(default=())


class SecureAggregation(AroundStrategy):
    """Hand a strategy the weighted mean of a round's uploads as if it were a single one.

    A strategy that starts from the mean weighted by numbers of examples (FedAvg, FedProx, FedAvgM,
    FedAdam, FedYogi, FedAdagrad, FedSGD) does then as it would do alone, but for the rounding to
    fixed-point numbers: at most K / (2·s·N) for each entry of the mean over N examples of K
    clients, with s ≈ 2^(modulus_bits − 1) / (K·max_examples·clip). One that needs single uploads is
    refused. Other metrics of the clients do not travel.

    A round in which too few clients remain ends in `RunStopped`.

    Args:
        strategy: Any other strategy of Flower's message API.
        secret: From which all masks are drawn; as the clients have it.
        threshold: Share of the clients (with `neighbours`, of each neighbourhood) that must
            remain. Bonawitz et al. need more than a half, and more than two thirds against a
            server that lies.
        clip: Largest absolute value of an upload's entries; larger ones are refused by the client.
        modulus_bits: k; sums are of whole numbers modulo 2^k. SecAgg+ in Flower has 32.
        max_examples: Largest number of examples of a client.
        neighbours: With how many others a client shares masks (SecAgg+); None: with all.

    Raises:
        ConfigError: The strategy needs single uploads, or is a Recording.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        secret: int,
        threshold: float = 2 / 3,
        clip: float = 8.0,
        modulus_bits: int = 48,
        max_examples: int = 2**16,
        neighbours: int | None = None,
    ) -> None:
        check_strategy(strategy)
        if hasattr(strategy, "tape"):
            raise ConfigError(
                "secure_aggregation: Recording must wrap it, got one that wraps Recording"
            )
        if reason := needs_single(strategy):
            raise ConfigError(
                f"secure_aggregation: the strategy must need the mean only, got {reason}, "
                "which needs single uploads"
            )
        self.strategy = strategy
        self.weighted_by_key = getattr(strategy, "weighted_by_key", NUM_EXAMPLES)
        self.secret = secret
        self.threshold, self.clip, self.modulus_bits = threshold, clip, modulus_bits
        self.max_examples, self.neighbours = max_examples, neighbours
        self._messages: list[Message] = []
        self._protocol: Protocol | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose clients, and tell each who the others are.

        Raises:
            ConfigError: There is one client only, the strategy does not send all the same, or the
                numbers leave no precision.
        """
        self._messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        self._protocol = None
        if others := Sent(self._messages, key_of(self.strategy)).names:
            raise ConfigError(
                "secure_aggregation: the strategy must send all clients the same weights, "
                f"got {len(others) + 1} different ones"
            )
        if self._messages:
            nodes = [str(message.metadata.dst_node_id) for message in self._messages]
            self._protocol = Protocol(
                round=server_round,
                members=tuple(nodes),
                threshold=self.threshold,
                clip=self.clip,
                modulus_bits=self.modulus_bits,
                max_examples=self.max_examples,
                neighbours=self.neighbours,
            )
            instructions = _to_config(self._protocol)
            for message in self._messages:
                message.content[SECURE] = instructions
        return self._messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Take the masks off the sum, and let the strategy go on from the mean.

        Raises:
            RunStopped: Too few clients remain.
        """
        return self.aggregate_sum(server_round, self.open(server_round, replies))

    def open(self, server_round: int, replies: Iterable[Message]) -> Sum:
        """Return what the server learns from a round's replies.

        Raises:
            RunStopped: Too few clients remain.
        """
        if self._protocol is None:
            return Sum({}, 0, ())
        sent = from_record(next(iter(self._messages[0].content.array_records.values())))
        senders, failures = Senders(self._messages), {}
        awaited = dict.fromkeys(self._protocol.members, "no reply in time")
        size = sum(value.numel() for value in sent.values()) + 1

        def usable() -> Iterable[tuple[str, Tensor]]:
            for reply in replies:
                node = str(senders.node(reply))
                if node not in awaited:
                    continue  # an answer to nothing, or a second one
                del awaited[node]
                try:
                    yield node, _numbers(reply, size)
                except ValueError as error:
                    failures[node] = plain(error)

        try:
            total, members = masking.unmasked(self._protocol, usable(), self.secret)
            shapes = [(name, value.shape) for name, value in sent.items()]
            mean, num_examples = masking.decode(self._protocol, total, shapes)
        except ValueError as error:
            first = list((failures | awaited).items())[:1]
            why = "; ".join(f"client {node}: {reason}" for node, reason in first)
            raise RunStopped(f"round {server_round}: {error}{why and f'; {why}'}") from None
        lost = [(int(node), reason) for node, reason in (failures | awaited).items()]
        return Sum(mean, num_examples, [int(node) for node in members], lost)

    def aggregate_sum(
        self, server_round: int, total: Sum
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy aggregate the mean as a single upload of all examples."""
        if not total.members:
            return self.strategy.aggregate_train(server_round, [])
        sent = self._messages[0].content.array_records
        key, record = next(iter(sent.items()))
        arrays = {
            name: Array(value.numpy().astype(record[name].dtype))
            if value.is_floating_point() and "float" in record[name].dtype
            else Array(value.numpy())
            for name, value in total.mean.items()
        }
        metrics = MetricRecord({self.weighted_by_key: total.num_examples})
        content = RecordDict({key: ArrayRecord(arrays), METRICS: metrics})
        only = Message(content, reply_to=self._messages[0])
        return self.strategy.aggregate_train(server_round, [only])


def needs_single(strategy: Strategy) -> str | None:
    """Return the strategy, or the one inside it, that looks at uploads one by one; None where none.

    Of a strategy that is not Flower's own nobody can tell.
    """
    inner = getattr(strategy, "strategy", None)
    if isinstance(strategy, SINGLE):
        return type(strategy).__name__
    return needs_single(inner) if isinstance(inner, Strategy) else None


def masked_reply(
    message: Message, upload: Params, num_examples: int, node_id: int, secret: int
) -> RecordDict:
    """Return what a client uploads under secure aggregation; it fails closed.

    Args:
        message: The train message, with the server's instructions.
        upload: After defenses.
        num_examples: Its weight.
        node_id: The client's node.
        secret: From which all masks are drawn.

    Raises:
        ValueError: There are no instructions, or what is to be uploaded cannot be summed.
    """
    instructions = message.content.config_records.get(SECURE)
    if instructions is None:
        raise ValueError("message: must hold the settings of secure aggregation, got none")
    protocol = _from_config(instructions)
    if str(node_id) not in protocol.members:
        raise ValueError(f"node: must be a member of the masked sum, got {node_id}")
    numbers = masking.encode(protocol, upload, num_examples)
    hidden = masking.masked(protocol, numbers, str(node_id), secret)
    return RecordDict({SECURE: to_record({NUMBERS: hidden})})


def _numbers(reply: Message, size: int) -> Tensor:
    """Return a reply's masked numbers.

    Raises:
        ValueError: It is an error, or not of that form.
    """
    if reply.has_error():
        raise ValueError(reason_of(reply))
    record = reply.content.array_records.get(SECURE)
    if record is None or list(record) != [NUMBERS]:
        raise ValueError("content: must be masked numbers, got something else")
    if reason := oversized(record, {NUMBERS: torch.empty(size, device="meta")}):
        raise ValueError(reason)
    try:
        numbers = from_record(record)[NUMBERS]
    except Exception as error:  # NumPy's decoder raises whatever the bytes lead it to
        raise ValueError(f"content: must be masked numbers ({error})") from None
    if numbers.dtype != torch.int64 or tuple(numbers.shape) != (size,):
        raise ValueError(
            f"content: must be {size} whole numbers, got {tuple(numbers.shape)} of {numbers.dtype}"
        )
    return numbers


def _to_config(protocol: Protocol) -> ConfigRecord:
    return ConfigRecord(
        {
            "round": protocol.round,
            "members": list(protocol.members),
            "threshold": float(protocol.threshold),
            "clip": float(protocol.clip),
            "modulus-bits": protocol.modulus_bits,
            "max-examples": protocol.max_examples,
            "neighbours": protocol.neighbours or 0,
        }
    )


def _from_config(record: ConfigRecord) -> Protocol:
    members = record["members"]
    assert isinstance(members, list)
    return Protocol(
        round=int(str(record["round"])),
        members=tuple(map(str, members)),
        threshold=float(str(record["threshold"])),
        clip=float(str(record["clip"])),
        modulus_bits=int(str(record["modulus-bits"])),
        max_examples=int(str(record["max-examples"])),
        neighbours=int(str(record["neighbours"])) or None,
    )
