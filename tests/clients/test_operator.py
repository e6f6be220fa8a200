import math

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, RecordDict

from clients.operator import Refused, agreed, described, operator, parse_defense
from clients.site import site
from fedsim import api, models
from fedsim.config import Part, to_json
from fedsim.core.errors import RunStopped
from fedsim.core.wire import ARRAYS, CONFIG, FEDSIM, from_record, to_record
from fedsim.data import federate
from fedsim.federation.client_app import app
from fedsim.federation.flower_private import set_message_id
from fedsim.federation.grid import SimulationGrid
from fedsim.run.run_folder import RunFolder
from tests.builders import grid_of, small_config

pytestmark = pytest.mark.usefixtures("undrawn")

CLIP = '[[defense]]\nname = "clip"\nbound = 0.125\n'
NOISE = CLIP + '[[defense]]\nname = "gaussian"\nstd = 0.01\n'


def reply_of(config, round_=1, **node):
    """Return what a deployed client answers to a train message."""
    grid_of(1, lambda client: None)  # Flower's messages want a run
    federated = federate(config)
    model = models.build(config.model, federated.dataset.form, seed=config.seed)
    content = RecordDict({
        ARRAYS: to_record(model.state_dict()),
        CONFIG: ConfigRecord({FEDSIM: to_json(config), "server-round": round_}),
    })  # fmt: skip
    message = Message(content, 7, "train")
    set_message_id(message, "1")
    context = Context(1, 7, {"partition-id": 0, **node}, RecordDict(), {})
    return app(message, context), model.state_dict()


def update_of(config, **node):
    reply, sent = reply_of(config, **node)
    assert not reply.has_error(), reply.error.reason
    uploaded = from_record(reply.content.array_records[ARRAYS])
    return torch.cat([(uploaded[name] - sent[name]).flatten() for name in sent])


def insist(monkeypatch, defense, clients=None):
    """Let the operators of these simulated clients (default: all) insist on a defense."""
    make_context = SimulationGrid._context

    def with_operator(self, node_id):
        context = make_context(self, node_id)
        if clients is None or self.client_of(node_id) in clients:
            context.node_config["defense"] = defense
        return context

    monkeypatch.setattr(SimulationGrid, "_context", with_operator)


def test_the_operators_defenses_are_applied_where_the_run_lists_none():
    assert float(update_of(small_config(), defense=CLIP).norm()) == pytest.approx(0.125, abs=1e-6)
    assert float(update_of(small_config()).norm()) > 0.3


def test_a_run_that_lists_the_same_defenses_goes_on():
    config = small_config(defense=[{"name": "clip", "bound": 0.125}])
    assert float(update_of(config, defense=CLIP).norm()) == pytest.approx(0.125, abs=1e-6)


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ([{"name": "clip", "bound": 50.0}], "clip(bound=50.0)"),
        (
            [{"name": "gaussian", "std": 0.01}, {"name": "clip", "bound": 0.125}],
            "gaussian(std=0.01)",
        ),
        ([{"name": "sign"}], "sign()"),
    ],
)
def test_a_run_that_lists_others_is_refused_in_one_sentence(asked, named):
    reply, _ = reply_of(small_config(defense=asked), defense=CLIP)
    assert reply.error.reason.startswith("defense: must be this node's clip(bound=0.125), got ")
    assert named in reply.error.reason


def test_the_server_sees_a_refusal_as_a_failed_row(tmp_path, monkeypatch):
    others = small_config(
        defense=[{"name": "clip", "bound": 9.0}], federation={"clients": 3, "rounds": 1}
    )
    insist(monkeypatch, CLIP, clients=("1",))
    run = api.run(others, tmp_path / "run")
    failed = [row for row in run.metrics().to_pylist() if row["metric"] == "failed"]
    assert [(row["client"], row["reason"]) for row in failed] == [
        ("1", "Refused: defense: must be this node's clip(bound=0.125), got clip(bound=9.0)")
    ]
    assert {row["client"] for row in run.ledger().to_pylist()} == {"0", "2"}


def test_of_operators_defenses_that_the_run_does_not_list_nothing_is_claimed(tmp_path, monkeypatch):
    insist(monkeypatch, NOISE)
    run = api.run(small_config(federation={"clients": 3, "rounds": 1}), tmp_path / "run")
    rows = run.metrics().to_pylist()
    assert {row["metric"] for row in rows if row["split"] == "defense"} == set()
    assert {row["attack"] for row in run.ledger().to_pylist()} == {"llg", "idlg"}  # none adaptive
    assert RunFolder(run.path).config.defense == ()
    assert all(row["value"] < 1.5 for row in rows if row["metric"] == "update_norm")


def test_noise_of_a_deployed_client_is_new_each_time_and_not_the_runs():
    config = small_config()
    one, other = update_of(config, defense=NOISE), update_of(config, defense=NOISE)
    simulated = update_of(config, defense=NOISE, simulated=True)
    clipped = update_of(config, defense=CLIP)
    noise = [one - clipped, other - clipped, simulated - clipped]
    spread = 4 / math.sqrt(2 * one.numel())  # of an estimate of a standard deviation
    for left, right in ((0, 1), (0, 2), (1, 2)):
        difference = float((noise[left] - noise[right]).std())
        assert difference == pytest.approx(0.01 * math.sqrt(2), rel=spread)


def test_an_operator_may_repeat_an_experiment_with_a_seed_that_is_not_the_runs():
    config = small_config()
    one = update_of(config, defense=NOISE, seed=5)
    assert torch.equal(one, update_of(config, defense=NOISE, seed=5))
    assert not torch.equal(one, update_of(config, defense=NOISE, seed=6))
    assert torch.equal(update_of(config, defense=NOISE, seed=config.seed),
                       update_of(config, defense=NOISE, simulated=True))  # fmt: skip


def test_coins_inside_training_are_secret_too_and_the_batches_order_is_the_runs():
    private = small_config(defense=[{"name": "dp-sgd"}])
    assert not torch.equal(update_of(private), update_of(private))
    assert torch.equal(update_of(private, seed=1), update_of(private, seed=1))
    plain = small_config()
    assert torch.equal(update_of(plain), update_of(plain, simulated=True))


def test_a_node_reads_its_own_folder(tmp_path):
    (tmp_path / "theirs").mkdir()
    config = small_config(data={"name": "tests.clients.test_operator:in_folder", "limit": None})
    allowed = {"allow": "tests.clients.test_operator:in_folder"}
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"root": str(tmp_path / "servers")})}
    )
    here = operator({"partition-id": 1, "data-root": str(tmp_path / "theirs"), **allowed})
    got = site(to_json(config), here)
    assert float(got.federated.dataset.inputs[0, 0]) == len("theirs")
    assert len(got.rows("1")) < 60
    whole = operator({"partition-id": 1, "data-root": str(tmp_path), "own-data": True, **allowed})
    assert len(site(to_json(config), whole).rows("1")) == 60
    # A run cannot make the node train on a few of its records.
    greedy = config.model_copy(
        update={
            "data": config.data.model_copy(update={"limit": 1, "users": "x", "partition": "user"})
        }
    )
    assert len(site(to_json(greedy), whole).rows("1")) == 60


def in_folder(root):
    from tests.builders import toy_dataset

    dataset = toy_dataset(root)
    dataset.inputs[:] = len(root.name)
    return dataset


@pytest.mark.parametrize(
    ("tables", "named"),
    [
        ({"data": {"name": "tests.builders:toy_dataset"}}, "data.name"),
        ({"model": {"name": "torch.nn:Identity"}}, "model.name"),
        ({"defense": [{"name": "subprocess:run"}]}, "defense.0.name"),
    ],
)
def test_a_server_cannot_name_code_to_import(tables, named):
    config = small_config(**tables)
    with pytest.raises(Refused, match=f"{named}: must be fedsim's own or allowed by this node"):
        site(to_json(config), operator({"partition-id": 0}))


def test_simulated_secure_aggregation_is_not_taken_for_protection_between_machines():
    reply, _ = reply_of(small_config(federation={"secure_aggregation": True}))
    assert "server could remove its simulated masks" in reply.error.reason


def test_the_operators_own_defense_needs_no_other_leave():
    text = '[[defense]]\nname = "tests.builders:sticky"\n'
    got = site(to_json(small_config()), operator({"partition-id": 0, "defense": text}))
    assert got.defense.name == "sticky"


def rows_of(node):
    own = operator(node)
    return site(to_json(small_config()), own).rows(own.client)


@pytest.mark.parametrize(
    ("node", "sentence"),
    [
        ({"seed": "x"}, "node seed: must be a whole number, got 'x'"),
        ({"seed": True}, "node seed: must be a whole number, got True"),
        ({"own-data": "yes"}, "node own-data: must be true or false, got 'yes'"),
        ({"own-data": True}, "node own-data: must be false without data-root, got true"),
        ({"defense": "/nowhere/at/all"}, "node defense: must be a readable TOML file"),
        ({"defense": "defense = []"}, "node defense: must list a defense, got none"),
        ({"defense": "seed = 3"}, r"node defense: must hold only \[\[defense\]\] tables, got seed"),
        ({"defense": "[[defense]"}, "node defense: must be valid"),
        ({"defense": 'defense = ["clop"]'}, "node defense: must be valid .*clip"),
        ({"defense": '[[defense]]\nname="clip"\nbound=-1.0'}, "node defense: must be valid"),
        ({"partition-id": 4}, "node partition-id: must be below federation.clients = 4, got 4"),
    ],
)
def test_a_wrong_node_config_uploads_nothing_and_says_why(node, sentence):
    with pytest.raises(Refused, match=sentence):
        rows_of({"partition-id": 0, **node})
    reply, _ = reply_of(small_config(), **node)
    assert pytest.importorskip("re").search(sentence, reply.error.reason)


def test_defenses_come_from_a_file_or_text(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(CLIP)
    for told in (str(file), CLIP, 'defense = [{name = "clip", bound = 0.125}]'):
        assert parse_defense(operator({"partition-id": 0, "defense": told}).defense) == (
            Part.model_validate({"name": "clip", "bound": 0.125}),
        )
    file.write_text("")
    with pytest.raises(Refused, match="got an empty file"):
        operator({"partition-id": 0, "defense": str(file)})


def test_which_defenses_a_client_applies():
    clip, sign = Part.model_validate({"name": "clip", "bound": 1.0}), Part(name="sign")
    assert agreed((), ()) == ()
    assert agreed((clip,), ()) == (clip,)
    assert agreed((), (clip, sign)) == (clip, sign)
    assert agreed((clip, sign), (clip, sign)) == (clip, sign)
    for asked in ((clip,), (sign, clip), (clip, sign, sign)):
        with pytest.raises(Refused, match="defense: must be this node's"):
            agreed(asked, (clip, sign))
    assert described((clip, sign)) == "clip(bound=1.0) → sign()"


def test_a_setting_in_which_the_operators_defense_does_not_hold_is_refused():
    config = small_config(model={"name": "resnet18"}, data={"name": "digits", "limit": 40})
    with pytest.raises(Refused, match="node defense.dp-sgd"):
        site(
            to_json(config), operator({"partition-id": 0, "defense": '[[defense]]\nname="dp-sgd"'})
        )


def test_what_fails_at_a_client_is_told_by_its_kind_alone(monkeypatch, caplog):
    from fedsim.federation import client_app

    def quoting(*_):
        raise ValueError("could not read 'Jane Doe, HIV positive'")

    monkeypatch.setattr(client_app, "site", quoting)
    reply, _ = reply_of(small_config())
    assert reply.error.reason == "ValueError: its node's log says why"


def test_a_spent_budget_is_told(tmp_path):
    config = small_config(defense=[{"name": "dp-sgd", "max_epsilon": 1e-9}])
    reply, _ = reply_of(config)
    assert "privacy budget spent" in reply.error.reason


def test_ground_truth_is_written_where_the_operator_says_and_nowhere_else(tmp_path):
    from adversary.grading.truth import read_truth

    config = small_config()
    reply_of(config)
    reply_of(config, truth=str(tmp_path / "mine"))
    truth = read_truth(tmp_path / "mine", 1, "0")
    assert torch.equal(truth.indices.unique(), federate(config).clients[0].sort().values)
    digits = {"data-root": str(tmp_path), "own-data": True, "truth": str(tmp_path / "own")}
    reply_of(config, **digits)
    own = read_truth(tmp_path / "own", 1, "0")
    assert len(own.labels) == 1438  # all of it, whatever limit the run has
    assert len(own.indices) == 0  # rows that mean nothing to anybody else


def test_when_every_operator_refuses_the_run_ends_with_the_reason(tmp_path, monkeypatch):
    insist(monkeypatch, CLIP)
    with pytest.raises(RunStopped, match="4 failures; client .: Refused: defense: must be this"):
        api.run(small_config(defense=[{"name": "sign"}]), tmp_path / "run")


HERE = "must be fedsim's own or allowed by this node"
FILE = "must be a column, a file in this node's data-root, or allowed"
ELSEWHERE = [
    ({"data": {"root": "/etc"}}, {}, "data.root", HERE),
    ({"data": {"root": "here"}}, {}, "data.root", HERE),
    ({"data": {"file": "../x"}}, {"data-root": "."}, "data.file", HERE),
    ({"data": {"file": ["~/x"]}}, {"data-root": "."}, "data.file.0", HERE),
    ({"model": {"name": "cnn", "weights": "/x"}}, {}, "model.weights", HERE),
    ({"defense": [{"name": "clip", "x": {"y": "os:system"}}]}, {}, "defense.0.x.y", HERE),
    ({"data": {"users": "/etc/passwd"}}, {}, "data.users", FILE),
    ({"data": {"users": "/etc/passwd"}}, {"data-root": "data"}, "data.users", FILE),
    ({"data": {"users": "../ids"}}, {"data-root": "data"}, "data.users", FILE),
    ({"data": {"users": "link"}}, {"data-root": "data"}, "data.users", FILE),
    ({"data": {"users": "secret"}}, {"data-root": "data"}, "data.users", FILE),
]


@pytest.mark.parametrize(("tables", "node", "key", "rule"), ELSEWHERE)
def test_a_server_names_no_place_on_a_node(tables, node, key, rule, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("ids", "secret", "link"):
        (tmp_path / name).write_text("mine\n")
    (tmp_path / "data" / "link").symlink_to("/etc/passwd")
    if "users" in tables.get("data", {}):
        tables = {"data": {**tables["data"], "partition": "user"}}
    with pytest.raises(Refused, match=f"^{key}: {rule}, got "):
        site(to_json(small_config(**tables)), operator({"partition-id": 0, **node}))


def test_a_run_may_name_ids_in_the_nodes_data_root_and_what_is_allowed(tmp_path):
    ids = [f"user {row % 8}" for row in range(160)]
    asked = small_config(
        data={"name": "tests.builders:toy_dataset", "size": 160, "partition": "user",
              "users": "ids.txt"}
    )  # fmt: skip
    (tmp_path / "ids.txt").write_text("\n".join(ids) + "\n")
    allowed = {"allow": "tests.builders:toy_dataset", "partition-id": 0}
    here = site(to_json(asked), operator({**allowed, "data-root": str(tmp_path)}))
    assert here.config.data.users == str(tmp_path / "ids.txt")
    column = asked.data.model_copy(update={"users": "user"})
    here = site(to_json(asked.model_copy(update={"data": column})), operator(allowed))
    assert here.config.data.users == "user"
    places = asked.data.model_copy(
        update={"root": str(tmp_path), "users": str(tmp_path / "ids.txt")}
    )
    also = {**allowed, "allow": f"{allowed['allow']}, {places.root}, {places.users}"}
    here = site(to_json(asked.model_copy(update={"data": places})), operator(also))
    assert here.config.data.root == str(tmp_path)
