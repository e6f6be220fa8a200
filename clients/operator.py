"""What a client's own operator decides, whatever the server asks for: data, defenses, code.

The operator's settings stand in the node's config (`flower-supernode --node-config FILE.toml`),
which the server neither sees nor writes:

    partition-id    which client this is
    data-root       folder of the data, in place of the run's data.root; a run may name files in it
    own-data        true: every training row in it is this client's
    defense         a TOML file, or TOML text, with [[defense]] tables as in a run's config
    allow           what else a run may name: parts with code of their own, folders, files,
                    "package.module:name, /path, …"
    seed            of the defenses' coins; only to repeat an experiment
    device          where its arithmetic runs: "cpu" (default), "cuda", "mps" or "auto"
    truth           folder for this client's ground truth
    consent-audit   true: a run that is audited may have this client carry canaries; without, it
                    trains as always, keeps no coins, and the audit does not count it
"""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Generator

import defenses
from fedsim import config as configs
from fedsim.config import Part
from fedsim.core.devices import resolved
from fedsim.core.errors import ConfigError, FedsimError
from fedsim.core.paths import user_path
from fedsim.core.rng import generator, secret_generator

SIMULATED = "simulated"  # in the node's config: one process plays every party


class Refused(FedsimError):
    """The operator of a client refuses a request; the server gets the reason."""


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node's config, read and checked.

    Attributes:
        client: Number of the client that this node is.
        root: Folder of its data; None where the run's config may say.
        own_data: Whether every training row in it is this client's.
        defense: TOML text with the defenses that it insists on; empty without.
        allowed: Names of parts outside fedsim that a run may use.
        seed: Of the defenses' coins; None for new ones from the system.
        simulated: Whether no server is there to keep anything from.
        consents: Whether it carries canaries in a run that is audited.
        device: Where its arithmetic runs; in a simulation the run's config says it.
    """

    client: str
    root: str | None = None
    own_data: bool = False
    defense: str = ""
    allowed: tuple[str, ...] = ()
    seed: int | None = None
    simulated: bool = False
    consents: bool = False
    device: str = "cpu"

    def coins(self, run_seed: int, *names: object) -> Generator:
        """Return the randomness that must not be known to the server, such as a defense's noise.

        In a simulation it comes from the run's seed, so that a run can be repeated.
        """
        seed = run_seed if self.simulated and self.seed is None else self.seed
        return secret_generator() if seed is None else generator(seed, *names)

    @property
    def repeats(self) -> bool:
        """Whether the same names give the same coins again."""
        return self.simulated or self.seed is not None


def operator(node: Mapping[str, object], *, simulated: bool = False) -> Operator:
    """Return what a node's config says.

    Raises:
        Refused: A value is of the wrong kind, the file of defenses cannot be read, or the machine
            lacks the device.
    """
    seed, own_data = node.get("seed"), node.get("own-data", False)
    consents = node.get("consent-audit", False)
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise Refused(f"node seed: must be a whole number, got {seed!r}")
    if not isinstance(own_data, bool):
        raise Refused(f"node own-data: must be true or false, got {own_data!r}")
    if not isinstance(consents, bool):
        raise Refused(f"node consent-audit: must be true or false, got {consents!r}")
    if "partition-id" not in node:
        raise Refused("node partition-id: must be set, got none")
    root = str(node.get("data-root", "")) or None
    if own_data and root is None:
        raise Refused("node own-data: must be false without data-root, got true")
    simulated = simulated or bool(node.get(SIMULATED))
    return Operator(
        client=str(node["partition-id"]),
        root=root,
        own_data=own_data,
        defense=_defense_text(str(node.get("defense", ""))),
        allowed=tuple(name.strip() for name in str(node.get("allow", "")).split(",")),
        seed=seed,
        simulated=simulated,
        consents=consents or simulated,
        device=_device(str(node.get("device", "cpu"))),
    )


def agreed(listed: tuple[Part, ...], insisted: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the defenses that a client applies.

    A run that lists none gets the operator's; one that lists others than the operator's is
    refused, whether they look stronger or weaker: which of two is stronger is for the operator
    to say.

    Raises:
        Refused: Both list defenses, and they differ.
    """
    if insisted and listed and listed != insisted:
        raise Refused(
            f"defense: must be this node's {described(insisted)}, got {described(listed)}"
        )
    return insisted or listed


def parse_defense(text: str) -> tuple[Part, ...]:
    """Return the defenses in TOML text, none in an empty one.

    Raises:
        Refused: It is not TOML, or lists no defense, or something else.
    """
    if not text:
        return ()
    try:
        tables = tomllib.loads(text)
        if set(tables) != {"defense"}:
            got = ", ".join(tables) or "nothing"
            raise Refused(f"node defense: must hold only [[defense]] tables, got {got}")
        parts = configs.parse(tables).defense
        defenses.build(parts)
    except (tomllib.TOMLDecodeError, ConfigError) as error:
        raise Refused(f"node defense: must be valid ({error})") from None
    if not parts:
        raise Refused("node defense: must list a defense, got none")
    return parts


def described(parts: Iterable[Part]) -> str:
    """Return defenses in their order with their options, on one line."""
    texts = []
    for part in parts:
        options = ", ".join(f"{key}={value}" for key, value in part.options.items())
        texts.append(f"{part.name}({options})")
    return " → ".join(texts) or "none"


def _device(setting: str) -> str:
    """Return the device that a node's config names.

    Raises:
        Refused: There is none of that name, or the machine lacks it.
    """
    try:
        return resolved(setting, "node device")
    except ConfigError as error:
        raise Refused(str(error)) from None


def _defense_text(setting: str) -> str:
    """Return TOML text itself, or that in the file it names."""
    if not setting.strip() or "=" in setting or "[" in setting:
        return setting.strip()
    try:
        text = user_path("node defense", setting).read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError):
        raise Refused(f"node defense: must be a readable TOML file, got '{setting}'") from None
    if not text:
        raise Refused(f"node defense: must list a defense, got an empty file '{setting}'")
    return text
