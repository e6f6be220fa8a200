"""The reference of the config: every key with type, default and rule, for people and editors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import tomli_w
from pydantic import BaseModel

from fedsim.config.fields import Part, Section, descriptions, section_of
from fedsim.config.root import Config

BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "multipleOf": "a multiple of {}",
    "minItems": "{} or more values",
}
REQUIRED, UNSET = "required", "not set"

Node = Mapping[str, Any]  # of a JSON schema


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the config.

    Attributes:
        section: Its table, such as `federation` or `federation.secure_aggregation`; empty for a
            key outside of tables.
        name: The key in that table.
        type: In words, such as "integer" or "list of strings".
        default: As TOML; "not set" or "required" where it has none.
        rule: What a value must satisfy, such as "at least 1"; empty for any value of the type.
        description: What it is.
    """

    section: str
    name: str
    type: str
    default: str
    rule: str
    description: str

    @property
    def path(self) -> str:
        """The key with its section, as `--set` takes it."""
        return f"{self.section}.{self.name}".lstrip(".")

    @property
    def example(self) -> str:
        """The setting with its default; with the type as a placeholder where it has none."""
        unset = self.default in (REQUIRED, UNSET)
        return f"{self.path}={self.type.upper() if unset else self.default}"


@dataclass(frozen=True)
class Table:
    """One table of the config; `name` is empty for the keys outside of tables."""

    name: str
    description: str
    keys: tuple[Key, ...]


def keys() -> list[Key]:
    """Return every key of the config, table by table."""
    return [key for table in tables() for key in table.keys]


def tables() -> list[Table]:
    """Return the tables of the config: first the keys outside of tables."""
    whole = schema()
    return list(_tables("", Config, whole, whole["$defs"]))


def schema() -> dict[str, Any]:
    """Return the JSON schema of a config file; editors complete TOML from it."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    whole = Config.model_json_schema()
    nodes = {**whole["$defs"], Config.__name__: whole}
    for table in (Part, *Part.__subclasses__(), *Section.__subclasses__()):
        node = nodes[table.__name__]
        for name, text in descriptions(table).items():
            node["properties"][name]["description"] = text
    return {"$schema": dialect, **_cleaned(whole)}


def literal(value: Any) -> str:
    """Return a value as TOML on one line."""
    if isinstance(value, Mapping):
        pairs = (
            f"{literal_key(name)} = {literal(it)}" for name, it in value.items() if it is not None
        )
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(literal, value))}]"
    return tomli_w.dumps({"value": value}).removeprefix("value = ").rstrip("\n")


def literal_key(name: str) -> str:
    """Return a key as TOML, in quotes where it must have them."""
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")


def _tables(name: str, model: type[BaseModel], node: Node, definitions: Node) -> Iterator[Table]:
    required = node.get("required", ())
    plain, inner = [], []
    for field_name, field in model.model_fields.items():
        key_node = node["properties"][field_name]
        section = section_of(field)
        if section is not None:
            inner.append((f"{name}.{field_name}".lstrip("."), section))
        # A table in a table is a key of it too where it may have another value: true or false.
        if section is None or (name and _type(key_node) != "table"):
            plain.append(
                Key(
                    section=name,
                    name=field_name,
                    type=_type(key_node),
                    default=_default(key_node, required=field_name in required),
                    rule=_rule(key_node),
                    description=key_node["description"],
                )
            )
    yield Table(name, node["description"], tuple(plain))
    for inner_name, section in inner:
        yield from _tables(inner_name, section, definitions[section.__name__], definitions)


def _cleaned(node: Any) -> Any:
    """Return a schema without what no TOML file can say (null), and with each text on one line."""
    if isinstance(node, list):
        return [_cleaned(it) for it in node]
    if not isinstance(node, dict):
        return node
    cleaned = {key: _cleaned(it) for key, it in node.items() if (key, it) != ("default", None)}
    choices = [it for it in cleaned.pop("anyOf", []) if it != {"type": "null"}]
    if len(choices) == 1:
        cleaned = {**choices[0], **cleaned}
    elif choices:
        cleaned["anyOf"] = choices
    if isinstance(cleaned.get("description"), str):
        paragraphs = cleaned["description"].split("\n\n")
        cleaned["description"] = "\n\n".join(" ".join(it.split()) for it in paragraphs)
    return cleaned


def _default(node: Node, *, required: bool) -> str:
    if required:
        return REQUIRED
    return literal(node["default"]) if "default" in node else UNSET


def _type(node: Node) -> str:
    """Return a node's type in words."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(map(_type, node["anyOf"])))
    if "$ref" in node or node["type"] == "object":
        return "table"
    if node["type"] != "array":
        return node["type"]
    items = node.get("items") or node["prefixItems"][0]
    return f"list of {' or '.join(f'{it}s' for it in _type(items).split(' or '))}"


def _rule(node: Node) -> str:
    """Return in words what a value must satisfy."""
    if "anyOf" in node:
        return "; ".join(dict.fromkeys(filter(None, map(_rule, node["anyOf"]))))
    rules = [text.format(node[bound]) for bound, text in BOUNDS.items() if bound in node]
    if "prefixItems" in node:
        rules = [f"{len(node['prefixItems'])} values"]
    if "enum" in node:
        rules.append(f"one of {', '.join(map(str, node['enum']))}")
    if items := node.get("items"):
        rules.append(_rule(items))
    return ", ".join(filter(None, rules))
