"""What a deployed run says of its nodes: facts in the ServerApp's log, and sentences made of them.

The log is all that reaches an operator on another machine. A fact is a line with `MARK` and JSON.
"""

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from fedsim.core.errors import plain

MARK = "fedsim-progress "
QUIET = 30.0  # seconds without news after which it is said who is waited for
FEW = 10  # clients that have a line each; of more, there are counts
OFTEN = 5.0  # seconds at least between two counts
UNAUTHORIZED = " 401"
EXPLAINED = (
    "A 401 in Flower's log is about the process of one task whose time is over, as on a busy "
    "machine. It is not about a node's key: a node with a wrong key is answered 412, and ends with "
    "code 305."
)


def line(facts: Mapping[str, Any]) -> str:
    """Return facts as a line of the log."""
    return MARK + json.dumps(facts)


def facts_in(text: str) -> dict[str, Any] | None:
    """Return the facts in a line of the log; None where there are none."""
    _, mark, data = text.partition(MARK)
    try:
        facts = json.loads(data) if mark else None
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None


class Nodes:
    """How the nodes of a run are, by the facts so far.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.waiting: dict[str, float] = {}  # clients that train, since when
        self.sampled = 0
        self.missing, self.connected = "", False
        self.round = 0
        self.begun = self.news = self.counted = clock()
        self.explained = False

    def hear(self, text: str) -> list[str]:
        """Return what a line of the log tells an operator, as sentences."""
        facts = facts_in(text)
        if facts is not None:
            sentences = self._sentences(facts)
        elif UNAUTHORIZED in text and not self.explained:
            self.explained, sentences = True, [EXPLAINED]
        else:
            sentences = []
        if sentences:
            self.news = self.clock()
        return [plain(sentence) for sentence in sentences]

    def still(self) -> str | None:
        """Return who is waited for, if there was no news for a while."""
        now = self.clock()
        if now < self.news + QUIET:
            return None
        self.news = now
        if self.waiting:
            since = min(self.waiting.values())
            return f"round {self.round}: {_listed(self.waiting)} training for {now - since:.0f} s"
        waited = f"{now - self.begun:.0f} s"
        if self.missing:
            return f"{self.missing} after {waited}; start the others, their keys are not at fault"
        if self.round:
            return f"round {self.round}: the server is at work"
        if self.connected:
            return f"all nodes connected, not all are ready after {waited}: each starts a process"
        return f"no node has connected after {waited}; Flower starts the server first"

    def _sentences(self, facts: Mapping[str, Any]) -> list[str]:
        match facts:
            case {"connected": int(count), "of": int(needed)}:
                self.connected = count >= needed
                self.missing = f"{count} of {needed} nodes connected" if count < needed else ""
                return [f"{count} of {needed} nodes connected"]
            case {"ready": str(client)}:
                return [f"client {client} ready"]
            case {"training": list(clients), "round": int(round_)}:
                self.round, self.sampled = round_, len(clients)
                self.waiting = dict.fromkeys(map(str, clients), self.clock())
                return [f"round {round_}: {_listed(self.waiting)} training"]
            case {"replied": str(client), "ok": bool(ok)}:
                return self._replied(client, ok=ok)
            case {"attacked": int(round_), "seconds": float(seconds)}:
                self.round, self.waiting = round_, {}
                return [f"round {round_}: attacked in {seconds:.1f} s"]
        return []

    def _replied(self, client: str, *, ok: bool) -> list[str]:
        since = self.waiting.pop(client, None)
        after = "" if since is None else f" after {self.clock() - since:.0f} s"
        if self.sampled <= FEW or not ok:
            return [f"client {client} {'uploaded' if ok else 'failed'}{after}"]
        if self.waiting and self.clock() < self.counted + OFTEN:
            return []
        self.counted = self.clock()
        return [f"{self.sampled - len(self.waiting)} of {self.sampled} clients replied"]


def _listed(clients: Mapping[str, float]) -> str:
    names = list(clients)
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"client{'s' * (len(names) > 1)} {', '.join(names[:FEW])}{more}"
