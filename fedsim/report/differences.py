"""What a comparison's runs differ in, and what each is called by it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.config import Config

APART = ("seed", "attack", "versions", "engine", "record", "game", "audit", "foreign")  # unseen
NAMED = 3  # settings in a name

Settings = Mapping[str, Any]


def settings_of(config: Config) -> dict[str, Any]:
    """Return a config's settings by `section.key`, a defense's by its name."""
    settings: dict[str, Any] = {
        "defense": " → ".join(part.name for part in config.defense) or "none"
    }
    for part in config.defense:
        settings |= {f"{part.name}.{option}": value for option, value in part.options.items()}
    for section, of in config.model_dump(exclude={*APART, "defense"}).items():
        if isinstance(of, dict):
            settings |= {f"{section}.{key}": value for key, value in of.items()}
    return settings


def varied(settings: Sequence[Settings]) -> list[str]:
    """Return the keys in which settings differ, in order."""
    keys = dict.fromkeys(key for of in settings for key in of)
    return [key for key in keys if any(of.get(key) != settings[0].get(key) for of in settings)]


def labels_of(configs: Sequence[Config], names: Sequence[str]) -> list[str]:
    """Return what runs are called beside each other: by what differs, else by their folders.

    Args:
        configs: Of the runs.
        names: Of their folders.

    Returns:
        A name for each, all different if the folders' names are.
    """
    settings = [settings_of(config) for config in configs]
    differ = varied(settings)
    labels = [label_of(of, differ) for of in settings]
    if len({config.seed for config in configs}) > 1:
        often = Counter(labels)
        labels = [
            ", ".join(filter(None, [label, f"seed {config.seed}"])) if often[label] > 1 else label
            for label, config in zip(labels, configs, strict=True)
        ]
    often = Counter(labels)
    return [
        label if label and often[label] == 1 else f"{label} ({name})" if label else name
        for label, name in zip(labels, names, strict=True)
    ]


def label_of(settings: Settings, keys: Sequence[str]) -> str:
    """Return some settings in words: `prune, rate 0.99, batch_size 1`; no defense is said so."""
    values = [(key, settings[key]) for key in keys if key in settings]
    parts = [_words(key, value) for key, value in values if value is not None]
    return ", ".join([*parts[:NAMED], *(["…"] if len(parts) > NAMED else [])])


def _words(key: str, value: Any) -> str:
    if key == "defense":
        return "no defense" if value == "none" else str(value)
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{key.rpartition('.')[2]} {text}"
