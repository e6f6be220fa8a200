"""Updates that are computed when they are read, one layer at a time."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from fedsim.config.foreign import Source
from fedsim.core.errors import BadRecording
from fedsim.core.params import difference
from fedsim.core.types import Params

SMALL = 2**18  # bytes


class Delta(Mapping[str, Tensor]):
    """Trained − sent, one layer at a time, in the precision of the upload."""

    def __init__(self, upload: Params, sent: Params) -> None:
        self.upload, self.sent = upload, sent

    def __getitem__(self, name: str) -> Tensor:
        return difference(self.upload[name], self.sent[name])

    @staticmethod
    def stacked(many: Sequence[Params], name: str) -> Tensor | None:
        """Return an array of many deltas to the same weights, as `stacked` asks for it."""
        deltas = [each for each in many if type(each) is Delta]
        origins = {id(each.sent): each.sent for each in deltas}
        if len(deltas) < len(many) or len(origins) > 1:
            return None
        uploads = [each.upload[name] for each in deltas]
        if len({(value.dtype, value.shape) for value in uploads}) > 1:
            return None
        return difference(torch.stack(uploads), deltas[0].sent[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.upload)

    def __len__(self) -> int:
        return len(self.upload)


class Once(Mapping[str, Tensor]):
    """Arrays of a file for one who changes none: small ones are read once.

    Args:
        params: The arrays.
    """

    def __init__(self, params: Params) -> None:
        self.params = params
        self._small: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        if name in self._small:
            return self._small[name]
        value = self.params[name]
        if value.nbytes <= SMALL:
            self._small[name] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self.params)


class Times(Mapping[str, Tensor]):
    """A cohort's mean times the number of its clients, one layer at a time."""

    def __init__(self, mean: Params, count: int) -> None:
        self.mean, self.count = mean, count

    def __getitem__(self, name: str) -> Tensor:
        return self.mean[name] * self.count

    def __iter__(self) -> Iterator[str]:
        return iter(self.mean)

    def __len__(self) -> int:
        return len(self.mean)


class Renamed(Mapping[str, Tensor]):
    """A tape's arrays under the names of a torch model, with their axes in torch's order.

    Args:
        params: The arrays, by the names on tape.
        sources: Name in the model → the array on tape, and the order of its axes.

    Raises:
        BadRecording: An array is not on tape, or has another number of axes.
    """

    def __init__(self, params: Params, sources: Mapping[str, Source]) -> None:
        self.params, self.sources = params, sources

    def __getitem__(self, name: str) -> Tensor:
        source = self.sources[name]
        if source.name not in self.params:
            raise BadRecording(f"{name}: must be on tape as '{source.name}', got no such array")
        value = self.params[source.name]
        if not source.axes:
            return value
        if value.ndim != len(source.axes):
            raise BadRecording(
                f"{source.name}: must have {len(source.axes)} axes on tape, got {value.ndim}"
            )
        return value.permute(source.axes).contiguous()

    def __iter__(self) -> Iterator[str]:
        return iter(self.sources)

    def __len__(self) -> int:
        return len(self.sources)
