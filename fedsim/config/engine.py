"""The section of the config on where clients and attacks run."""

from typing import Annotated, Literal

from pydantic import Field

from fedsim.config.fields import Count, Natural, Section

Threads = Annotated[int, Field(ge=1, le=256, strict=True)]  # torch crashes at some thousands


class Engine(Section):
    """Where clients and attacks run; every engine gives the same bits."""

    name: Literal["inline", "ray"] = "inline"
    """One process, or Ray."""
    address: str | None = None
    """Address of a running Ray cluster; Ray starts on this machine if omitted."""
    workers: Count | None = None
    """Number of clients that train at a time on Ray; one per core if omitted."""
    threads: Threads = 1
    """Number of threads of each client's arithmetic."""
    attackers: Natural = 0
    """Number of rounds attacked at a time in processes of their own; 0: after every round, in
    this process."""
