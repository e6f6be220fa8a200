"""Torch's settings of a process, which foreign code may change and never put back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from fedsim.core.accepts import Rule
from fedsim.core.errors import ConfigError


def _now() -> dict[str, object]:
    return {
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
    }


SETTERS: dict[str, Callable[..., object]] = {
    "default dtype": torch.set_default_dtype,
    "gradients": torch.set_grad_enabled,
    "threads": torch.set_num_threads,
}


@contextmanager
def settings_kept(rule: Rule, *, threads: bool = True) -> Iterator[None]:
    """Put torch's settings back after the block, and refuse what changed them.

    Args:
        rule: What is refused.
        threads: Whether another number of threads is refused, too. It is put back in any case.

    Raises:
        ConfigError: A setting is another one after the block; whatever the block raised is its
            cause.
    """
    before = _now()
    try:
        yield
    finally:
        if changed := _put_back(before, threads=threads):
            raise ConfigError(rule.message(changed))


def _put_back(before: dict[str, object], *, threads: bool) -> str:
    """Return the first setting that was changed, with its value; empty if none was."""
    changed = {name: value for name, value in _now().items() if value != before[name]}
    for name in changed:
        SETTERS[name](before[name])
    texts = (f"{name} {value}" for name, value in changed.items() if threads or name != "threads")
    return next(texts, "")
