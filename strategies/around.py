"""Around a strategy or a Grid of Flower's: everything that is not changed is passed through."""

from collections.abc import Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError

KIND = Rule("strategy", "strategy", "must be one of flwr.serverapp.strategy")
WHOLE = Rule("strategy", "strategy", "must be an object", "the message says what to write")
CHECKS = (KIND, WHOLE)
LEGACY = "strategies.legacy.LegacyRecording(strategy, tape, names=list(Net().state_dict()))"


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

    def initialize_parameters(self, *_: Any) -> None:
        """Refuse to be what `server_fn` runs.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(
            f"server_fn: must be given {LEGACY}, got {type(self).__name__}, which is for "
            "`@app.main()`"
        )

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


def name_of(strategy: Strategy) -> str:
    """Return the name of a strategy's class; of one that fedsim wraps, that of the one inside."""
    while isinstance(strategy, AroundStrategy):
        strategy = strategy.strategy
    return type(strategy).__name__


def check_strategy(strategy: object) -> None:
    """Refuse what is no strategy of Flower's message API, with what to write instead.

    Raises:
        ConfigError: It is another object.
    """
    if isinstance(strategy, Strategy):
        return
    name = getattr(strategy, "__name__", None) or type(strategy).__name__
    if isinstance(strategy, type):
        raise ConfigError(WHOLE.message(f"the class {name}; write {name}(...)"))
    if hasattr(strategy, "configure_fit"):
        raise ConfigError(KIND.message(f"the legacy API's {name}; write {LEGACY}"))
    raise ConfigError(KIND.message(name))
