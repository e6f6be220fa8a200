"""Updates that are computed when they are read, one layer at a time."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from fedsim.core.types import Params


class Delta(Mapping[str, Tensor]):
    """Trained − sent, one layer at a time, in the precision of the upload."""

    def __init__(self, upload: Params, sent: Params) -> None:
        self.upload, self.sent = upload, sent

    def __getitem__(self, name: str) -> Tensor:
        value = self.upload[name]
        return value - self.sent[name].to(value.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self.upload)

    def __len__(self) -> int:
        return len(self.upload)


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
