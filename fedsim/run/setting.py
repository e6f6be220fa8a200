"""A run's setting as flat keys, and what of it tells runs apart."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedsim.config import Cell, Config, Part

LONGEST = 60  # characters of one value
DEFAULTS = "defaults"
PARTS = ("defense", "attack")


def flat(config: Config) -> dict[str, Any]:
    """Return a config as `section.key` → value; parts and lists are texts.

    Null keys, versions and trackers are left out: they decide no result.
    """
    tables = config.model_dump(
        mode="json", exclude_none=True, exclude={"versions", "track", *PARTS}
    )
    parts = {key: [part_text(part) for part in getattr(config, key)] for key in PARTS}
    return dict(_leaves("", tables)) | {key: ", ".join(of) or "none" for key, of in parts.items()}


def part_text(part: Part) -> str:
    """Return a chosen part with its options: `clip(max_norm=1.0)`."""
    options = ", ".join(f"{key}={value}" for key, value in part.options.items())
    return f"{part.name}({options})" if options else part.name


def changed(config: Config) -> dict[str, Any]:
    """Return the keys in which a config is not the default one."""
    return _unlike(flat(config), flat(Config()))


def apart(configs: Sequence[Config]) -> list[dict[str, Any]]:
    """Return for each config what is not the default, without what all of them share.

    Equal configs share everything: of these, and of a single one, all that is not the default.
    """
    settings, default = [flat(config) for config in configs], flat(Config())
    keys = dict.fromkeys(key for of in settings for key in of)
    varied = {key for key in keys if any(of.get(key) != settings[0].get(key) for of in settings)}
    return [
        {k: v for k, v in _unlike(of, default).items() if not varied or k in varied}
        for of in settings
    ]


def words(setting: Mapping[str, Any]) -> str:
    """Return a setting in one line: `local.lr 0.05, defense clip(max_norm=1.0)`."""
    return ", ".join(f"{key} {_short(value)}" for key, value in setting.items()) or DEFAULTS


def listed(cells: Iterable[Cell]) -> str:
    """Return what is not the default in each cell of a grid, a key per line under its name."""
    texts = []
    for cell in cells:
        lines = [f"  {key} = {value}" for key, value in changed(cell.config).items()]
        texts.append("\n".join([cell.name, *(lines or [f"  {DEFAULTS}"])]))
    return "\n\n".join(texts)


def _unlike(setting: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a setting that differ; a key that only the default has is null."""
    keys = [*setting, *(key for key in default if key not in setting)]
    return {key: setting.get(key) for key in keys if setting.get(key) != default.get(key)}


def _short(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _leaves(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        joined = ((f"{key}.{name}" if key else name, part) for name, part in value.items())
        return [leaf for name, part in joined for leaf in _leaves(name, part)]
    if isinstance(value, list):
        return [(key, ", ".join(map(str, value)))]
    return [(key, value)]
