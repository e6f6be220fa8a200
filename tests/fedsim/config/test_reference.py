import tomllib
from operator import attrgetter

import jsonschema
import pytest

from fedsim import config as configs
from fedsim.config import Config, commented
from fedsim.config.reference import Key, keys, literal, schema, tables
from fedsim.core.errors import ConfigError


def test_keys_by_hand():
    by_name = {(key.section, key.name): key for key in keys()}
    assert by_name["local", "momentum"] == Key(
        section="local",
        name="momentum",
        type="number",
        default="0.0",
        rule="at least 0, below 1",
        description="Momentum of the client's SGD; 0 with fedsgd, adam and adamw.",
    )
    assert (
        by_name["federation.secure_aggregation", "modulus_bits"].rule == "at least 16, at most 62"
    )
    assert by_name["federation", "secure_aggregation"].type == "boolean or table"
    assert by_name["data", "partition"].rule == "one of iid, dirichlet, shards, user"
    assert by_name["data", "limit"].default == "not set"
    assert by_name["game", "batch_size"].type == "integer or list of integers"
    assert by_name["foreign", "num_classes"].default == "required"
    assert by_name["", "attack"].default == (
        '[{name = "llg"}, {name = "eb-gls-rounds"}, {name = "fedmia-rounds"}, '
        '{name = "analytic", every = 3}]'
    )


def test_no_key_is_left_out_and_each_is_described():
    dumped = configs.read(None, ["federation.secure_aggregation=true"]).model_dump()
    flat = {(section, key) for section, of in dumped.items() if isinstance(of, dict) for key in of}
    inner = {tuple(table.name.split(".")) for table in tables() if "." in table.name}
    assert flat <= {(key.section, key.name) for key in keys()} | inner
    assert ("auxiliary", "range") in inner
    for key in keys():
        assert key.description.endswith(".")
        assert "\n" not in key.description
    assert [table.name for table in tables()][:3] == [
        "",
        "federation",
        "federation.secure_aggregation",
    ]


def test_the_schema_describes_every_key_of_every_table():
    whole = schema()
    for node in (whole, *whole["$defs"].values()):
        assert all(key["description"] for key in node["properties"].values())


def test_defaults_are_those_of_the_config():
    optional = {"", "check", "foreign", "track", "federation.secure_aggregation", "model.lora"}
    for table in tables():
        if table.name not in optional:
            for key in table.keys:
                value = attrgetter(f"{table.name}.{key.name}")(Config())
                value = list(value) if isinstance(value, tuple) else value
                assert key.default == ("not set" if value is None else literal(value))


@pytest.mark.parametrize(
    "text",
    [
        commented(Config()),
        'data = "mnist"\nattack = "llg,idlg"\ndefense = ["clip", {name = "gaussian", std = 0.1}]',
        "game = {batch_size = 4, value = 3}\nfederation = {secure_aggregation = true}",
        "[data]\nname = 'adult'\noption = 4\n[model]\nname = 'mlp'\nhidden = 3",
    ],
)
def test_the_schema_accepts_what_the_config_accepts(text):
    configs.parse(tomllib.loads(text))
    jsonschema.validate(tomllib.loads(text), schema())


@pytest.mark.parametrize(
    "text",
    [
        "lokal = 1",
        "[local]\nlrr = 1",
        "[local]\nlr = 0",
        "[federation]\nclients = 'many'",
        "[engine]\nname = 'slurm'",
        "[audit]\nvalues = ['one']",
        "[game]\nbatch_size = []",
    ],
)
def test_the_schema_refuses_what_the_config_refuses(text):
    with pytest.raises(ConfigError):
        configs.parse(tomllib.loads(text))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(text), schema())
