"""Whose reply a reply is."""

from collections.abc import Sequence

from flwr.app import Message

from fedsim.core.errors import plain


class Senders:
    """Tells the node that a reply is of, by the message that it answers.

    The SuperLink answers in the place of a dead client, from its own node id.

    Args:
        messages: Those sent; they have their ids once the first reply is there.
    """

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = messages
        self._places: dict[str, int] | None = None

    def place(self, reply: Message) -> int | None:
        """Return which message a reply answers: its place in those sent; None for none of them.

        A reply that names no message answers the first one that its node was sent.
        """
        if self._places is None:
            ids = (message.metadata.message_id for message in self.messages)
            self._places = {id_: place for place, id_ in enumerate(ids) if id_}
        answered = self._places.get(reply.metadata.reply_to_message_id)
        if answered is not None:
            return answered
        nodes = [message.metadata.dst_node_id for message in self.messages]
        source = reply.metadata.src_node_id
        return nodes.index(source) if source in nodes else None

    def node(self, reply: Message) -> int:
        """Return the node that was asked; of an answer to nothing, the node that it comes from."""
        place = self.place(reply)
        if place is None:
            return reply.metadata.src_node_id
        return self.messages[place].metadata.dst_node_id


def reason_of(reply: Message) -> str:
    """Return what an error reply says, on one line of 300 characters."""
    return plain(reply.error.reason or "") or f"error {reply.error.code}"
