"""The ground truth of what was recorded: of one client, or of a cohort under secure aggregation."""

from adversary.grading.truth import joined, read_truth
from fedsim.core.types import Truth
from fedsim.run.run_folder import RunFolder
from strategies.tape import members_of, recorded_clients


def truth_of(folder: RunFolder, round_: int, client: str) -> Truth | None:
    """Return what a client used in a round; of a recorded cohort, what all its clients used.

    None where one of them keeps it.

    Raises:
        BadRecording: A file is damaged.
    """
    names = (client,)
    if client in recorded_clients(folder.path, round_):
        names = members_of(folder.path, round_, client)
    there = [read_truth(folder.truth, round_, name) for name in names]
    known = [truth for truth in there if truth is not None]
    return joined(known) if len(known) == len(there) else None
