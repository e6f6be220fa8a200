"""Around a strategy or a Grid of Flower's: everything that is not changed is passed through."""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy


class AroundGrid(Grid):
    """A Grid that hands on to `grid`; how messages are sent and received is its subclass's."""

    grid: Grid

    def get_node_ids(self) -> Iterable[int]:
        """Pass through."""
        return self.grid.get_node_ids()

    def set_run(self, run: Any) -> None:
        """Pass through."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """Pass through."""
        return self.grid.run

    def create_message(self, *args: Any, **options: Any) -> Message:
        """Pass through."""
        return self.grid.create_message(*args, **options)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass through."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pass through."""
        return self.grid.pull_messages(message_ids)


class AroundStrategy(Strategy):
    """A strategy that hands on to `strategy` what is not about training."""

    strategy: Strategy

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Pass through."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Pass through."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Pass through."""
        self.strategy.summary()
