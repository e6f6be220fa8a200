"""TensorBoard: event files in the run folder, written by its own writer, without TensorFlow."""

# The package is an extra.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# Its protocol buffers make their classes at import:
# pyright: reportAttributeAccessIssue=false

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedsim.track.job import UNTRAINED, Job, Status


class TensorBoard:
    """Scalars by round, the config as text."""

    def __init__(self, job: Job) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.folder = Path(job.folder) / "tensorboard"
        self.id, self.last = self.folder.name, job.last
        self._writer = EventFileWriter(str(self.folder))
        if job.id is None:
            self._add(UNTRAINED, summary=_text("config", f"```toml\n{job.toml}\n```"))
        else:  # readers drop what an earlier process wrote of later rounds
            self._add(job.last + 1, session_log=SessionLog(status=SessionLog.START))

    def write(self, round_: int, values: Mapping[str, float]) -> None:
        """Keep a round's metrics."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._add(round_, summary=Summary(value=scalars))
        self._writer.flush()

    def finish(self, report: str | None, status: Status) -> None:
        """Say how the run ended; an event file holds no other files."""
        where = f"; the report is {Path(report).name} in the run folder" if report else ""
        self._add(max(self.last, UNTRAINED), summary=_text("run", f"{status}{where}"))
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, **content))


def _text(tag: str, text: str) -> Any:
    """Return a text as TensorBoard's plugin for texts stores it."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
    tensor = TensorProto(dtype="DT_STRING", string_val=[text.encode()], tensor_shape=shape)
    plugin = SummaryMetadata.PluginData(plugin_name="text")
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
