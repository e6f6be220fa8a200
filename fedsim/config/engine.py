"""The section of the config on where clients and attacks run."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.config.fields import Count, Natural, Section

TOGETHER = 64  # clients: from here on the arithmetic is nearly all of the time
Threads = Annotated[int, Field(ge=1, le=256, strict=True)]  # torch crashes at some thousands


class Engine(Section):
    """Where clients and attacks run; on the CPU `inline` and `ray` give the same bits."""

    name: Literal["inline", "ray", "batched"] = "inline"
    """One process, Ray, or one process in which clients train together."""
    batch: Count | None = None
    """For `batched` and `ray`: number of clients that train together, and of clients that attacks
    and games rehearse together; the last bits of results depend on it, and memory grows with it. If
    omitted: 1 on Ray; for `batched` 64 on the CPU, else as many as fit into free memory."""
    device: Literal["cpu", "cuda", "mps", "auto"] = "cpu"
    """Where clients train, and the global model is evaluated and run by attacks, games and
    `fedsim explain`; `auto`: an accelerator if at hand. The last bits of results depend on it."""
    address: str | None = None
    """Address of a running Ray cluster; Ray starts on this machine if omitted."""
    workers: Count | None = None
    """Number of clients that train at a time on Ray; one per core if omitted."""
    threads: Threads = 1
    """Number of threads of each client's arithmetic."""
    attackers: Natural = 0
    """Number of rounds attacked at a time in processes of their own; 0: after every round, in
    this process."""

    @model_validator(mode="before")
    @classmethod
    def _resolved(cls, table: object) -> object:
        """Write down how many train together: a run goes on with that number."""
        if isinstance(table, Mapping) and table.get("name") == "batched":
            on_cpu = table.get("device", "cpu") == "cpu"
            return {"batch": TOGETHER, **table} if on_cpu else table
        return table

    @model_validator(mode="after")
    def _batch(self) -> "Engine":
        batched = self.name == "batched"
        if (self.batch is not None and self.name == "inline") or (
            self.batch is None and batched and self.device == "cpu"
        ):
            raise ValueError(
                "batch: must be a number with name = 'batched', may be one with 'ray', and is none "
                f"with 'inline', got {self.batch} with '{self.name}'"
            )
        return self

    @property
    def arithmetic(self) -> str:
        """What the last bits of a run depend on; empty for the engines that give the same bits."""
        together = self.name == "batched" or (self.batch or 1) > 1
        parts = [f"'batched' with batch = {self.batch}"] if together and self.batch else []
        if self.device != "cpu":
            parts.append(f"device '{self.device}'")
        return " on ".join(parts)
