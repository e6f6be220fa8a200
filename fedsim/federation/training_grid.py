"""The grid of a run's rounds: each client trains at most once a round, as the config says.

An ε counts one upload of each client a round, noise is drawn for the round's number, and attacks
take the local training from the config. A strategy that asks for more, or for something else,
would make all three false.
"""

from collections.abc import Callable, Iterable, Iterator

from flwr.app import ConfigRecord, Message
from flwr.serverapp import Grid

from fedsim.core.accepts import Rule
from fedsim.core.errors import RunStopped, plain
from fedsim.core.wire import CONFIG, FEDSIM, records_of
from strategies.around import AroundGrid

PART = "training message of a strategy"
STOPS = "the run stops; nothing of the round is committed"
ONCE = Rule(PART, "message", "must be the only one to its client in a round", STOPS)
SETTINGS = Rule(
    PART, "config", "must hold the run's own settings and the number of the round", STOPS
)
PULL = Rule(PART, "`proximal-mu`", "must be the strategy's own from the first round on", STOPS)
CHECKS = (ONCE, SETTINGS, PULL)

OnClient = Callable[[int, int, int], None]
"""Called with a round, clients that have replied in it, and clients that were asked."""


class TrainingGrid(AroundGrid):
    """A Grid that stops the run where a client is to train twice, or not as the run says.

    Args:
        grid: Reaches the clients.
        client_of: Node id → client.
        settings: The run's, as each training message carries them.
        proximal_mu: Of FedProx, as attacks know it.
        on_client: Called with the round, how many clients have replied in it, and how many were
            asked.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        client_of: Callable[[int], str],
        settings: str,
        proximal_mu: float,
        on_client: OnClient = lambda *_: None,
    ) -> None:
        self.grid = grid
        self.on_client = on_client
        self.client_of = client_of
        self.settings = settings
        self.proximal_mu = proximal_mu
        self._round = 0
        self._asked: set[int] = set()

    def begin(self, round_: int) -> None:
        """Begin a round: no client was asked yet."""
        self._round, self._asked = round_, set()

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Pass through what keeps the rules.

        Raises:
            RunStopped: A message does not.
        """
        sent = self._checked(messages)
        training = {m.metadata.dst_node_id for m in sent if _is_training(m)}
        return self._counted(self.grid.send_and_receive(sent, timeout=timeout), len(training))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Pass through what keeps the rules.

        Raises:
            RunStopped: A message does not.
        """
        return self.grid.push_messages(self._checked(messages))

    def _counted(self, replies: Iterable[Message], sampled: int) -> Iterator[Message]:
        """Pass replies through as they come, and say how many came."""
        for count, reply in enumerate(replies, start=1):
            if count <= sampled:
                self.on_client(self._round, count, sampled)
            yield reply

    def _checked(self, messages: Iterable[Message]) -> list[Message]:
        messages = list(messages)
        checked = set[int]()  # most share one content
        for message in filter(_is_training, messages):
            self._check_once(message.metadata.dst_node_id)
            if id(message.content) not in checked:
                self._check(message)
                checked.add(id(message.content))
        return messages

    def _check_once(self, node: int) -> None:
        if node in self._asked:
            raise self._refusal(ONCE, node, "a second one")
        self._asked.add(node)

    def _check(self, message: Message) -> None:
        node = message.metadata.dst_node_id
        config = records_of(message.content, ConfigRecord).get(CONFIG, ConfigRecord())
        expected = {FEDSIM: self.settings, "server-round": self._round}
        for key, value in expected.items():
            if config.get(key) != value:
                got = "none" if key not in config else plain(config[key])[:40]
                raise self._refusal(SETTINGS, node, f"{got} for '{key}'")
        if config.get("proximal-mu", 0.0) != self.proximal_mu:
            got = plain(config.get("proximal-mu", 0.0))
            raise self._refusal(PULL, node, f"{got} in place of {self.proximal_mu:g}")

    def _refusal(self, rule: Rule, node: int, got: str) -> RunStopped:
        return RunStopped(
            f"round {self._round}: {rule.message(f'{got} (client {self.client_of(node)})')}"
        )


def _is_training(message: Message) -> bool:
    return message.metadata.message_type.split(".")[0] == "train"
