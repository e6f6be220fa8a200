"""What the files of a tape must say of themselves."""

import json

from fedsim.core.accepts import Rule
from fedsim.core.errors import BadRecording
from fedsim.core.files import TensorFile
from fedsim.core.groups import Group
from fedsim.core.types import LocalTraining

MOST_EXAMPLES = 10**9
EXAMPLES = Rule("recording", "`num_examples` of an upload", "must be from 1 to 10⁹")
NAMES = Rule("recording", "arrays of an upload", "must have the names of the weights sent")
CHECKS = (EXAMPLES, NAMES)


def check_upload(
    upload: Group, sent: TensorFile, round_: int, client: str, local: LocalTraining
) -> int | None:
    """Return the number of examples that an upload says it has.

    Raises:
        BadRecording: A file is missing, damaged, or was not written by a recorder.
    """
    facts = upload.metadata
    try:
        stated = facts.get("num_examples")  # somebody else's clients may not say
        num_examples = None if stated is None else int(float(stated))
        kind, recorded_round = facts["upload"], facts["round"]
    except (KeyError, ValueError, OverflowError) as error:
        raise BadRecording(
            f"{upload.path}: must hold upload and round, and num_examples ({error})"
        ) from None
    if (kind, recorded_round) != (local.upload, str(round_)):
        raise BadRecording(
            f"{upload.path}: must be the {local.upload} of client {client} in round {round_}, "
            f"got the {kind} of round {recorded_round}"
        )
    if num_examples is not None and not 1 <= num_examples <= MOST_EXAMPLES:
        raise BadRecording(f"{upload.path}: num_examples {EXAMPLES.rule}, got {num_examples}")
    if missing := set(sent) ^ set(upload):
        raise BadRecording(
            f"{upload.path}: must have the names of {sent.path.name}, differs in {min(missing)}"
        )
    if (got := sent.metadata.get("round")) != str(round_):
        raise BadRecording(f"{sent.path}: must be of round {round_}, got {got}")
    return num_examples


def members_in(upload: Group, client: str) -> tuple[str, ...]:
    """Return the clients whose uploads are in a file: its own, or those of its cohort.

    Raises:
        BadRecording: They are no list of clients.
    """
    stated = upload.metadata.get("members")
    if stated is None:
        return (client,)
    try:
        members = json.loads(stated)
        json.dumps(members, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        members = None
    if not isinstance(members, list) or not all(isinstance(name, str) for name in members):
        raise BadRecording(f"{upload.path}: members must be a list of clients, got {stated}")
    if not members or len(set(members)) < len(members):
        raise BadRecording(f"{upload.path}: members must be clients, each once, got {stated}")
    return tuple(members)
