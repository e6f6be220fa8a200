"""What the simulation uses of Flower beyond its public API: who runs, and numbered messages."""

from flwr.app import Message, RecordDict

from fedsim.core.pieces import MissingPiece, Pieces

SIMULATION = Pieces(
    "flwr",
    "the engines inline and ray",
    {"TaskIdentity": "flwr.supercore.task_identity:TaskIdentity"},
)
MESSAGE_ID = "_message_id"


def enter_run(node_id: int) -> None:
    """Say which run and node this process is: Flower's messages want to know.

    Raises:
        MissingPiece: Flower asks in another way.
    """
    identity = SIMULATION.get("TaskIdentity")
    identity.run_id = identity.task_id = 1
    identity.node_id = node_id


def set_message_id(message: Message, message_id: str) -> None:
    """Number a message, as Flower's grid does when it sends one.

    Raises:
        MissingPiece: Flower keeps the number elsewhere.
    """
    fields = vars(message.metadata)
    if MESSAGE_ID not in fields:
        raise MissingPiece(SIMULATION.without(f"flwr.app:Metadata.{MESSAGE_ID}"))
    fields[MESSAGE_ID] = message_id


def shell_of(message: Message) -> Message:
    """Return a message without its content, under the same metadata."""
    return Message(RecordDict(), metadata=message.metadata)  # type: ignore[call-overload]
