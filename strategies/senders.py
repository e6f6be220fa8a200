"""Whose reply a reply is."""

from collections.abc import Sequence

from flwr.app import Message


class Senders:
    """Tells the node that a reply is of, by the message that it answers.

    The SuperLink answers in the place of a dead client, from its own node id.

    Args:
        messages: Those sent; they have their ids once the first reply is there.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._nodes: dict[str, int] | None = None

    def node(self, reply: Message) -> int:
        """Return the node that was asked; of an answer to nothing, the node that it comes from."""
        if self._nodes is None:
            metadata = (message.metadata for message in self.messages)
            self._nodes = {it.message_id: it.dst_node_id for it in metadata}
            self._nodes.pop("", None)
        return self._nodes.get(reply.metadata.reply_to_message_id, reply.metadata.src_node_id)


def reason_of(reply: Message) -> str:
    """Return what an error reply says, on one line."""
    return " ".join((reply.error.reason or "").split()) or f"error {reply.error.code}"
