"""A look at a Flower app before it runs."""

import json
import os
import sys
from textwrap import dedent

import pytest

from tests.fedsim.cli.test_main import fedsim

PROJECT = """
[tool.flwr.app.components]
serverapp = "{name}.server_app:app"
clientapp = "{name}.client_app:app"
"""
SERVER = """
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Result
from {name}.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    arrays = ArrayRecord(Net().state_dict())
    strategy = FedAvg(fraction_train=0.5)
    result = strategy.start(grid=grid, initial_arrays=arrays)
    raise SystemExit("the server was run")
"""
CLIENT = """
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from {name}.task import train

app = ClientApp()
raise SystemExit("the client was run")


@app.train()
def fit(msg, context):
    content = RecordDict({{"arrays": ArrayRecord(), "metrics": MetricRecord()}})
    return Message(content, reply_to=msg)
"""
TASK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2)
        self.head = nn.Linear(4 * 13 * 13, 10)

    def forward(self, x):
        return self.head(self.conv(x).flatten(1))


def train(net):
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
"""


@pytest.fixture
def app(tmp_path):
    """Write an app into a folder, under a name that no other test imports."""

    def write(name, server=SERVER, client=CLIENT, task=TASK):
        package = tmp_path / "app" / name
        package.mkdir(parents=True)
        (package.parent / "pyproject.toml").write_text(PROJECT.format(name=name))
        (package / "__init__.py").write_text("")
        for file, text in (("server_app", server), ("client_app", client), ("task", task)):
            (package / f"{file}.py").write_text(dedent(text).format(name=name))
        return package.parent

    yield write
    for name in [name for name in sys.modules if name.startswith("watched")]:
        del sys.modules[name]


def test_a_look_says_what_is_recorded_and_prints_the_two_lines(app, capsys):
    path = app("watched_torch")
    code, out, err = fedsim(capsys, "watch", path)
    assert (code, err) == (0, "")
    assert "Ran      import watched_torch.task, Net()" in out
    assert "Strategy FedAvg (watched_torch/server_app.py:13); message API" in out
    assert "sgd (watched_torch/task.py:17)" in out
    assert "Replies  {'arrays': ArrayRecord(), 'metrics': MetricRecord()}" in out
    assert "inputs 1x28x28, 10 logits, head head.weight, head.bias" in out
    assert "Attacks  by name alone: llg, " in out
    assert "Attacks  with --auxiliary: llg-plus, " in out
    assert "Attacks  not on such a tape: membership, " in out
    assert (
        "Add      to watched_torch/server_app.py, before line 14:\n"
        "           from strategies import Recording\n"
        '           strategy = Recording(strategy, tape="/abs/runs/mine")\n'
    ) in out
    assert (
        "fedsim attack /abs/runs/mine --model watched_torch.task:Net --num-classes 10 "
        "--local-lr 0.05 --local-batch-size <N> --local-momentum 0.9 --with llg,llbg"
    ) in out


def test_nothing_is_run_where_nothing_is_to_be(app, capsys):
    path = app("watched_unrun", task=TASK + "\nraise SystemExit('the task was run')\n")
    code, out, _ = fedsim(capsys, "watch", path, "--no-import", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["ran"] == "nothing of the app"
    assert "watched_unrun" not in sys.modules
    assert "llg" in facts["attacks"]["with --head-weight and --head-bias"]
    assert "llg-star" in facts["attacks"]["with --model, a twin in torch"]
    # What the module raises is the reason, and the look goes on.
    code, out, _ = fedsim(capsys, "watch", path)
    assert code == 0
    assert "watched_unrun.task:Net cannot be built here (the task was run)" in out


def test_adamw_is_said_to_be_no_sgd_and_a_wrapped_strategy_is_wrapped_outermost(app, capsys):
    wrapper = "DifferentialPrivacyServerSideFixedClipping"
    server = SERVER.replace("strategy.start(", "private.start(").replace("Result", wrapper)
    server = server.replace("    result", f"    private = {wrapper}(strategy, 1, 1, 5)\n    result")
    path = app("watched_adamw", server, task=TASK.replace("optim.SGD", "optim.AdamW"))
    out = fedsim(capsys, "watch", path)[1]
    assert "FedAvg (watched_adamw/server_app.py:13), DifferentialPrivacyServerSide" in out
    assert 'private = Recording(private, tape="/abs/runs/mine")' in out
    assert "Clients run adamw; attacks read uploads as plain SGD." in out
    assert "--local-optimizer adamw" in out


LEGACY = """
from flwr.common import Context
from flwr.server import ServerApp, ServerAppComponents, ServerConfig
from flwr.server.strategy import FedAvg
from .task import Net


class Mine(FedAvg):
    pass


def server_fn(context: Context):
    mine = Mine()
    return ServerAppComponents(strategy=mine, config=ServerConfig(num_rounds=3))


app = ServerApp(server_fn=server_fn)
"""


def test_the_legacy_api_is_told_from_the_message_api(app, capsys):
    out = fedsim(capsys, "watch", app("watched_legacy", LEGACY))[1]
    assert "Strategy Mine (watched_legacy/server_app.py:13); legacy API" in out
    assert "before line 14:" in out
    names = "names=list(Net().state_dict())"
    assert "from strategies.legacy import LegacyRecording" in out
    assert f'mine = LegacyRecording(mine, tape="/abs/runs/mine", {names})' in out


def test_trees_are_recorded_and_not_attacked(app, capsys):
    task = "import xgboost as xgb\n\n\ndef train():\n    return xgb.train({{}}, None)\n"
    server = SERVER.replace("from {name}.task import Net", "").replace("Net().state_dict()", "")
    out = fedsim(capsys, "watch", app("watched_trees", server, task=task))[1]
    assert (
        "XGBoost sends trees as bytes: the tape keeps what is sent, and no attack reads trees."
        in out
    )
    assert "Attacks  by name" not in out


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "APP_DIR: must be a folder with a pyproject.toml of a Flower app, got "),
        ("[tool", "APP_DIR: must be a folder with a pyproject.toml of a Flower app, got "),
        ("[tool.flwr]\napp = 3", "tool.flwr.app.components: must name serverapp and clientapp"),
        (PROJECT.format(name="x" * 300), "files of the app, got 'xxx"),
        (PROJECT.format(name="nowhere"), "files of the app, got 'nowhere.server_app:app'"),
    ],
)
def test_a_folder_without_an_app_is_one_sentence(text, sentence, tmp_path, capsys):
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    code, out, err = fedsim(capsys, "watch", tmp_path)
    assert (code, out) == (2, "")
    assert sentence in err.replace("\n", " ")
    assert "Traceback" not in err


def test_no_file_of_an_app_stops_the_look(app, capsys):
    cycle = "class A(B):\n    pass\n\n\nclass B(A):\n    pass\n\n\nA()\n"
    server = SERVER + cycle.replace("A", "Odd")
    path = app("watched_odd", server, task=TASK + "\nraise BaseException('odd')\n")
    package = path / "watched_odd"
    (package / "deep.py").write_text("x" + ".a" * 900 + "()")
    (package / "folder.py").mkdir()
    os.mkfifo(package / "pipe.py")
    code, out, _ = fedsim(capsys, "watch", path)
    assert code == 0
    assert "watched_odd.task:Net cannot be built here (odd)" in out
    assert "Not read: watched_odd/folder.py (no regular file)" in out
    assert "Not read: watched_odd/pipe.py (no regular file)" in out
    assert 'strategy = Recording(strategy, tape="/abs/runs/mine")' in out


def test_a_file_that_is_no_python_is_named_and_left_out(app, capsys):
    path = app("watched_broken")
    (path / "watched_broken" / "old.py").write_text("print 'hello'")
    assert "Not read: watched_broken/old.py (" in fedsim(capsys, "watch", path)[1]


QUERIES = """
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    return grid.send_and_receive([])
"""


def test_an_app_without_a_strategy_gets_no_line_and_is_promised_no_attack(app, capsys):
    path = app("watched_query", QUERIES)
    facts = json.loads(fedsim(capsys, "watch", path, "--json")[1])
    assert facts["strategy"] == "none found"
    assert (facts["records"], facts["add"]) == ("nothing", [])
    assert list(facts["attacks"]) == ["not on such a tape"]
    assert facts["next"] == "none: there will be no tape"
    out = fedsim(capsys, "watch", path)[1]
    assert "Add      nothing; no strategy was found to record around" in out
    assert "what a ServerApp sends by itself through the Grid is not recorded." in out


def test_a_strategy_that_a_function_makes_is_recorded_where_it_is_handed_over(app, capsys):
    made = SERVER.replace("FedAvg(fraction_train=0.5)", "make(context)")
    out = fedsim(capsys, "watch", app("watched_made", made))[1]
    assert "Strategy strategy (watched_made/server_app.py:14); message API" in out
    assert "before line 14:" in out
    server = LEGACY.replace("Mine()", "make(context)").replace("class Mine(FedAvg):\n    pass", "")
    out = fedsim(capsys, "watch", app("watched_made_legacy", server))[1]
    assert "; legacy API" in out
    assert 'mine = LegacyRecording(mine, tape="/abs/runs/mine"' in out


def test_a_strategy_without_a_name_is_wrapped_in_its_place(app, capsys):
    server = SERVER.replace("    strategy = FedAvg(fraction_train=0.5)\n", "")
    out = fedsim(
        capsys, "watch", app("watched_inline", server.replace("strategy.s", "FedAvg().s"))
    )[1]
    assert "server_app.py, line 13, with the second line in place of FedAvg():" in out
    assert '           Recording(FedAvg(), tape="/abs/runs/mine")' in out
    server = LEGACY.replace("strategy=mine", "strategy=Mine()").replace("    mine = Mine()\n", "")
    out = fedsim(capsys, "watch", app("watched_inline_legacy", server))[1]
    assert "with the second line in place of Mine():" in out
    assert '           LegacyRecording(Mine(), tape="/abs/runs/mine"' in out


def test_each_place_that_starts_a_strategy_needs_a_line(app, capsys):
    server = SERVER.replace(
        "    raise", "    strategy.start(grid=grid, initial_arrays=arrays)\n    raise"
    )
    out = fedsim(capsys, "watch", app("watched_twice", server))[1]
    assert "handed over in other places, too (watched_twice/server_app.py:15)" in out


SECURE = """
from flwr.server import LegacyContext, ServerApp, ServerConfig
from flwr.server.strategy import FedAvg
from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow
from .task import Net

app = ServerApp()


@app.main()
def main(grid, context):
    legacy = LegacyContext(context=context, config=ServerConfig(3), strategy=FedAvg())
    run = DefaultWorkflow(fit_workflow=SecAggPlusWorkflow(3, 2))
    run(grid, legacy)
"""


def test_flowers_secure_aggregation_is_recorded_at_the_grid(app, capsys):
    out = fedsim(capsys, "watch", app("watched_secure", SECURE))[1]
    assert "watched_secure/server_app.py, before line 14:" in out
    assert "from strategies.secagg_plus import SecAggPlusRecording" in out
    names = "names=list(Net().state_dict())"
    assert f'grid = SecAggPlusRecording(grid, tape="/abs/runs/mine", {names})' in out
    assert "Secure aggregation: the tape has the mean of each round's clients" in out


def test_what_a_module_prints_is_not_in_the_answer(app, capsys):
    path = app("watched_loud", task="print('loud')\n" + TASK)
    facts = json.loads(fedsim(capsys, "watch", path, "--json")[1])
    assert "watched_loud.task:Net" in facts["model"]


def test_a_model_that_is_not_built_is_still_named(app, capsys):
    out = fedsim(capsys, "watch", app("watched_named"), "--no-import")[1]
    assert "--model watched_named.task:Net --num-classes <C> --local-lr 0.05" in out
    assert "not built" not in out
    two = TASK + "\n\nclass Other(nn.Module):\n    pass\n"
    server = SERVER.replace("from {name}.task import Net", "").replace("Net().state_dict()", "")
    out = fedsim(capsys, "watch", app("watched_two", server, task=two))[1]
    assert "of watched_two.task.Net, watched_two.task.Other none stands out; name one by" in out


def test_no_label_attack_is_promised_where_no_logits_are_given(app, capsys):
    coder = TASK.replace("self.head(self.conv(x).flatten(1))", "(self.conv(x), x)")
    out = fedsim(capsys, "watch", app("watched_coder", task=coder))[1]
    assert "The model gives no logits of a linear layer: no label attack applies." in out
    assert "llg" not in out
    table = TASK.replace("self.conv(x).flatten(1)", "x").replace("4 * 13 * 13", "14")
    out = fedsim(capsys, "watch", app("watched_table", task=table))[1]
    assert "Attacks  with --input-shape, if the model is a classifier: llg, " in out


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("import transformers\ntransformers.TrainingArguments(learning_rate=1e-4)", "run adamw;"),
        ("import mlx.optimizers as optim\noptim.SGD(learning_rate=0.1)", "--local-lr 0.1 "),
        ("import peft", "Adapters of peft may be all that clients send."),
        ("", "The clients' optimizer was not found; attacks read uploads as plain SGD."),
    ],
)
def test_what_the_clients_run_is_read_or_said_to_be_unknown(line, sentence, app, capsys):
    task = TASK.replace(
        "    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)", "    ..."
    )
    client = CLIENT.replace("app = ClientApp()", f"app = ClientApp()\n{line}", 1)
    out = fedsim(capsys, "watch", app("watched_clients", client=client, task=task), "--no-import")[
        1
    ]
    assert sentence in out
