"""Fence: no client ends the round of the others, and no aggregate is taken that is no model."""

import logging
import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import torch
from flwr.app import (
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from torch import Tensor

from fedsim.core.accepts import Rule
from fedsim.core.blocks import Block, Row
from fedsim.core.boundary import PASSING, raised
from fedsim.core.errors import RunStopped, is_disk_full, plain
from fedsim.core.params import cast_like
from fedsim.core.types import Params, Upload
from fedsim.core.wire import (
    METRICS,
    NUM_EXAMPLES,
    content_of,
    from_record,
    metrics_of,
    records_of,
)
from strategies.aggregates import not_a_model, not_finite_in
from strategies.around import AroundStrategy, check_strategy, name_of
from strategies.secure import SecureAggregation
from strategies.senders import Senders, reason_of
from strategies.sent import Sent, key_of
from strategies.uploads import (
    FORMS,
    SENT,
    WEIGHT,
    Passed,
    Refused,
    decoded,
    model_of,
    num_examples_of,
    update_norm,
)

REFUSED = 452  # the Error's code: the reply was not handed to the strategy
MOST_EXAMPLES = 10**9
FENCED = "upload behind a fence"
ERROR = "an error of the client"
BOUND = Rule(FENCED, "number of examples", f"must be at most {MOST_EXAMPLES:,}", ERROR)
NORM = Rule(FENCED, "update", "must have a norm whose square stays far below overflow", ERROR)
METRIC = Rule(FENCED, "metrics", "must be the weight and those that the strategy needs", "left out")
DTYPE = Rule(FENCED, "any array", "must be of the model's dtype", "cast, and logged once")
REASON = Rule(FENCED, "reason of an error", "must be one printable line of 300 characters", "cut")
CHECKS = (*FORMS, WEIGHT, BOUND, NORM, METRIC, DTYPE, REASON)


class Fence(AroundStrategy):
    """Hand a strategy only what it can aggregate, and take from it only a model.

    A strategy behind it gets replies of one form: the arrays that its client was sent, in their
    dtypes and finite, and a number of examples. In place of any other reply it gets an error that
    says why, so that the client is left out of the round and the others are not. Its aggregate
    must have the names and shapes of the model that it was given, and be finite.

    For strategies whose clients return what they were sent; not for trees that grow.
    `Fence(Recording(strategy, tape))` records what passes. Under `SecureAggregation` uploads are
    masked, and the aggregate alone is checked.

    Args:
        strategy: Any strategy of Flower's message API.
        upload: What clients upload: trained weights, or the gradient.
        metrics: Names of the other metrics that the strategy needs of every client.
        max_examples: Largest number of examples that a client may state.

    Raises:
        ConfigError: The strategy is none of the message API.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        upload: Upload = "weights",
        metrics: Iterable[str] = (),
        max_examples: int = MOST_EXAMPLES,
    ) -> None:
        check_strategy(strategy)
        self.strategy = strategy
        self.upload: Upload = upload
        self.metrics = tuple(metrics)
        self.max_examples = max_examples
        self.weighted_by_key = _weighted_by(strategy)
        self.arrayrecord_key = key_of(strategy)
        self.masked = _masked(strategy)
        self._model: dict[str, Tensor] = {}
        self._dtypes: dict[str, Tensor] = {}
        self._messages: list[Message] = []
        self._sent = Sent(())
        self._cast = False

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let the strategy choose clients and messages.

        Raises:
            RunStopped: It raises something, or gives no messages.
        """
        self._model = from_record(arrays)
        # Of the model as it was first: some strategies give float64, and clients do not.
        self._dtypes = _empty(self._model) | self._dtypes
        try:
            messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
            if wrong := [message for message in messages if not isinstance(message, Message)]:
                raise TypeError(f"messages must be Message, got {type(wrong[0]).__name__}")
            self._messages, self._sent = messages, Sent(messages, self.arrayrecord_key)
        except BaseException as error:
            raise self._stopped(server_round, "choose clients", error) from error
        return self._messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Let the strategy aggregate what passes.

        Raises:
            RunStopped: It raises something, or its aggregate is not a finite model.
        """
        passed = self._passed(replies)
        ours = isinstance(self.strategy, AroundStrategy)  # takes one reply after another
        try:
            arrays, metrics = self.strategy.aggregate_train(
                server_round, passed if ours else list(passed)
            )
        except BaseException as error:
            raise self._stopped(server_round, "aggregate", error) from error
        if arrays is not None and (reason := not_a_model(arrays, self._model, self._dtypes)):
            raise RunStopped(
                f"round {server_round}: the aggregate of {name_of(self.strategy)} must be a "
                f"finite model, got {plain(reason)}"
            )
        return arrays, metrics

    def _stopped(self, round_: int, what: str, error: BaseException) -> BaseException:
        """Return what to raise where the strategy, or the grid behind its replies, fails."""
        if isinstance(error, PASSING) or is_disk_full(error):
            return error
        name = name_of(self.strategy)
        return RunStopped(f"round {round_}: {name} cannot {what} ({raised(error)})")

    def _passed(self, replies: Iterable[Message]) -> Iterator[Message]:
        """Yield one reply for each message that was answered: cleaned, or an error."""
        senders, awaited = Senders(self._messages), set(range(len(self._messages)))
        for reply in replies:
            place = senders.place(reply) if isinstance(reply, Message) else None
            if place not in awaited:  # an answer to nothing, or a second one
                continue
            awaited.discard(place)
            message = self._messages[place]
            if self.masked:  # one by one they mean nothing; `SecureAggregation` checks their form
                yield reply
                continue
            try:
                yield Message(self._clean(reply, place), reply_to=message)
            except Refused as refused:
                yield Message(Error(REFUSED, str(refused)), reply_to=message)

    def _clean(self, reply: Message, place: int) -> RecordDict:
        """Return what a strategy may see of a reply.

        Raises:
            Refused: Nothing.
        """
        if reply.has_error():
            raise Refused(REASON, reason_of(reply))
        sent, key = self._sent.params(place), self._sent.keys[place]
        if sent is None or key is None:
            raise Refused(SENT, f"message: {SENT.rule}")
        try:
            arrays = self._arrays(model_of(reply, key)[1], sent)
            metrics = self._metrics(reply)
        except Refused:
            raise
        except Exception as error:  # a client in this process may upload any object
            raise Refused(FORMS[0], f"content: must be readable ({error})") from None
        return content_of({key: arrays, METRICS: metrics})

    def _arrays(self, record: ArrayRecord, sent: Params) -> Passed:
        upload, length = decoded(record, sent, self.upload)
        if isinstance(upload, Row):
            block = upload.block
            if length <= block.results.get(Fence, id(self), lambda: self._allows(block, sent)):
                return Passed(upload, self.upload, length, record)
        ours = self._dtypes
        changed = [n for n, value in upload.items() if value.dtype != ours.get(n, sent[n]).dtype]
        if changed:
            dtypes = _empty(sent) | {name: ours[name] for name in sent if name in ours}
            if reason := not_finite_in(upload, sent, dtypes):
                raise Refused(DTYPE, reason)
            self._say_cast(changed[0], upload, dtypes)
            upload = cast_like(upload, dtypes)
            length = update_norm(upload, sent, self.upload)
        largest = _largest(frozenset(value.dtype for value in sent.values()))
        if not length <= largest:
            raise Refused(
                NORM, f"update: must have a norm of at most {largest:.0e}, got {length:g}"
            )
        in_order = {name: upload[name] for name in sent}
        return Passed(in_order, self.upload, length, None if changed else record)

    def _allows(self, block: Block, sent: Params) -> float:
        """Return the largest norm of the rows of a block that pass as they are; −1 for none."""
        places, ours = block.layout.places, self._dtypes
        same = all(places[n].dtype == ours.get(n, sent[n]).dtype for n in places)
        if not same or block.layout.names != tuple(sent):
            return -1.0
        return _largest(frozenset(value.dtype for value in sent.values()))

    def _metrics(self, reply: Message) -> MetricRecord:
        key = self.weighted_by_key
        value = num_examples_of(reply, key)
        if value > self.max_examples:
            raise Refused(BOUND, f"{key}: must be at most {self.max_examples:,}, got {value:g}")
        if not self.metrics and type(value) in {int, float}:
            return metrics_of({key: value})
        stated = next(iter(records_of(reply.content, MetricRecord).values()))
        for name in self.metrics:
            number = stated.get(name)
            if not isinstance(number, int | float) or not math.isfinite(number):
                raise Refused(METRIC, f"{name}: must be a finite number, got {number}")
        return MetricRecord({name: stated[name] for name in (key, *self.metrics)})

    def _say_cast(self, name: str, upload: Params, dtypes: Params) -> None:
        if not self._cast:
            self._cast = True
            logging.getLogger(__name__).warning(
                "a client uploads %s as %s: cast to the model's %s; not logged again",
                plain(name),
                upload[name].dtype,
                dtypes[name].dtype,
            )


def _masked(strategy: Strategy) -> bool:
    while isinstance(strategy, AroundStrategy):
        if isinstance(strategy, SecureAggregation):
            return True
        strategy = strategy.strategy
    return False


def _weighted_by(strategy: Strategy) -> str:
    """Return the metric that the strategy, or the one inside it, weights by."""
    inner: Any = strategy
    while not hasattr(inner, "weighted_by_key") and hasattr(inner, "strategy"):
        inner = inner.strategy
    return str(getattr(inner, "weighted_by_key", NUM_EXAMPLES))


def _empty(params: Params) -> dict[str, Tensor]:
    """Return a tensor of no size of each dtype."""
    return {name: value.new_empty(0) for name, value in params.items()}


@lru_cache(maxsize=64)
def _largest(dtypes: frozenset[torch.dtype]) -> float:
    """Return the largest norm of an update; squares of some, and their sums, do not overflow."""
    floats = [torch.finfo(dtype).max for dtype in dtypes if dtype.is_floating_point]
    return math.sqrt(max([*floats, torch.finfo(torch.float32).max])) / 16
