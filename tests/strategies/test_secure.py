from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import FedAvg

from adversary.labels.head import read_head
from adversary.workspace import workspace
from fedsim.core.errors import BadRecording, ConfigError, RunStopped
from fedsim.core.group_writer import save_groups
from fedsim.core.rng import generator
from fedsim.core.types import LocalTraining
from fedsim.core.wire import from_record, to_record
from fedsim.federation.grid import SimulationGrid
from strategies import FedSGD, Recording, SecureAggregation, Tape
from strategies.secure import SECURE, masked_reply
from strategies.tape import cohort_name, members_of, recorded_clients, recorded_rounds
from strategies.tape_views import views
from tests.builders import auxiliary_of, bilinear, norms, observe, plain_gradient, reply_with

SHAPES = {"w": (5, 4), "b": (5,)}
SENT = {name: torch.ones(shape) for name, shape in SHAPES.items()}
LOCAL = LocalTraining(lr=0.1, batch_size=4)
SECRET = 7


def values_of(client, round_=1):
    stream = generator(round_, "secure", client)
    return {name: torch.randn(shape, generator=stream) for name, shape in SHAPES.items()}


def plain(message, context, round_):
    client = int(context.node_config["partition-id"])
    arrays = {name: value.numpy() for name, value in values_of(client, round_).items()}
    return reply_with(arrays, client + 1)


def hidden(message, context, round_):
    client = int(context.node_config["partition-id"])
    upload = values_of(client, round_)
    return masked_reply(message, upload, client + 1, context.node_id, SECRET)


def grid_of(answer, count, round_, lost=()):
    def execute(jobs, timeout):
        for message, context in jobs:
            client = int(context.node_config["partition-id"])
            if client in lost and client % 2:
                continue  # no reply
            if client in lost:
                yield Message(Error(code=0, reason="no more\nmemory"), reply_to=message), context
                continue
            try:
                content = answer(message, context, round_)
            except ValueError as error:
                yield Message(Error(code=0, reason=str(error)), reply_to=message), context
                continue
            yield Message(content, reply_to=message), context

    return SimulationGrid(count, execute, Path("unused"))


def rounds(strategy, answer, *, numbers=(1, 2), count=4, lost=()):
    arrays = to_record(SENT)
    for number in numbers:
        grid = grid_of(answer, count, number, lost)
        messages = strategy.configure_train(number, arrays, ConfigRecord(), grid)
        arrays, metrics = strategy.aggregate_train(number, grid.send_and_receive(messages))
        yield arrays, metrics


MEANS = {
    "fedavg": flower.FedAvg,
    "fedprox": lambda: flower.FedProx(proximal_mu=0.1),
    "fedadam": lambda: flower.FedAdam(eta=0.1),
    "fedyogi": lambda: flower.FedYogi(eta=0.1),
    "fedadagrad": lambda: flower.FedAdagrad(eta=0.1),
    "fedavgm": lambda: flower.FedAvgM(server_momentum=0.9),
    "fedsgd": lambda: FedSGD(lr=0.1),
    "dp-client-fixed": lambda: flower.DifferentialPrivacyClientSideFixedClipping(
        FedAvg(), noise_multiplier=0.1, clipping_norm=1.0, num_sampled_clients=4
    ),
}


@pytest.mark.parametrize("name", MEANS)
def test_a_strategy_of_the_mean_does_as_it_would_do_alone(name):
    np.random.seed(0)  # noqa: NPY002 Flower's noise
    alone = [from_record(arrays) for arrays, _ in rounds(MEANS[name](), plain)]
    np.random.seed(0)  # noqa: NPY002
    secure = SecureAggregation(MEANS[name](), secret=SECRET)
    for plainly, (arrays, metrics) in zip(alone, rounds(secure, hidden), strict=True):
        assert list(arrays) == list(plainly)
        for key, value in from_record(arrays).items():
            assert value.dtype == plainly[key].dtype
            assert torch.allclose(value, plainly[key], atol=1e-6)
        assert "num-examples" not in dict(metrics or {})


SINGLES = {
    "Krum": flower.Krum,
    "MultiKrum": flower.MultiKrum,
    "Bulyan": flower.Bulyan,
    "FedMedian": flower.FedMedian,
    "FedTrimmedAvg": flower.FedTrimmedAvg,
    "QFedAvg": lambda: flower.QFedAvg(client_learning_rate=0.1),
    "DifferentialPrivacyServerSideFixedClipping": (
        lambda: flower.DifferentialPrivacyServerSideFixedClipping(FedAvg(), 0.1, 1.0, 4)
    ),
    "FedTrimmedAvg ": lambda: flower.DifferentialPrivacyClientSideFixedClipping(
        flower.FedTrimmedAvg(), 0.1, 1.0, 4
    ),
}


@pytest.mark.parametrize("name", SINGLES)
def test_a_strategy_that_needs_single_uploads_is_refused(name):
    with pytest.raises(ConfigError, match=f"got {name.strip()}, which needs single uploads"):
        SecureAggregation(SINGLES[name](), secret=SECRET)


@pytest.mark.parametrize("upload", ["weights", "gradient"])
def test_the_tape_has_one_cohort_and_no_client(tmp_path, upload):
    inner = FedAvg() if upload == "weights" else FedSGD(lr=0.1)
    recording = Recording(
        SecureAggregation(inner, secret=SECRET), tmp_path,
        client_of=lambda node: str(node - 2), upload=upload,
    )  # fmt: skip
    list(rounds(recording, hidden, lost=(3,)))
    name = cohort_name(["2", "0", "1"])
    assert recorded_rounds(tmp_path) == [1, 2]
    for round_ in (1, 2):
        assert recorded_clients(tmp_path, round_) == [name]
        assert members_of(tmp_path, round_, name) == ("0", "1", "2")
    files = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert files == ["files.json"] * 2 + ["sent.safetensors"] * 2 + ["uploads.safetensors"] * 2
    assert recording.failures == [("3", "no reply in time")]
    assert recording.members == ("0", "1", "2")
    local = LocalTraining(lr=0.1, batch_size=4, upload=upload)
    [view] = views(tmp_path, 1, local)
    update = view.latest.update
    assert (update.num_clients, update.num_examples, update.client) == (3, 1 + 2 + 3, name)
    for key in SHAPES:
        weighted = sum((k + 1) * values_of(k)[key].double() for k in range(3)) / 6
        moved = weighted - SENT[key] if upload == "weights" else weighted
        assert torch.allclose(update.delta[key], 3 * moved, atol=1e-7)
    mean = {key: value / 3 for key, value in update.delta.items()}
    recording.norms.pop(name)
    assert recording.norms == {}
    assert norms([mean])[0] > 0


def test_the_recorder_changes_no_bit_of_secure_aggregation(tmp_path):
    build = lambda: SecureAggregation(flower.FedAdam(eta=0.1), secret=SECRET)
    alone = rounds(build(), hidden, lost=(1,))
    taped = rounds(Recording(build(), tmp_path, client_of=str), hidden, lost=(1,))
    for (arrays, _), (recorded, _) in zip(alone, taped, strict=True):
        for name, value in from_record(arrays).items():
            assert torch.equal(value, from_record(recorded)[name])


def test_a_cohort_is_the_same_one_in_rounds_with_the_same_clients_only(tmp_path):
    recording = Recording(SecureAggregation(FedAvg(), secret=SECRET), tmp_path, client_of=str)
    list(rounds(recording, hidden, numbers=(1, 2)))
    list(rounds(recording, hidden, numbers=(3,), lost=(0,)))
    list(rounds(recording, hidden, numbers=(4,)))
    assert cohort_name("ab") == cohort_name("ba") != cohort_name("abc")
    assert recorded_clients(tmp_path, 1) != recorded_clients(tmp_path, 3)
    [view] = views(tmp_path, 4, LOCAL)
    assert [seen.update.round for seen in view.observations] == [1, 2, 4]


def test_too_few_clients_end_the_round_in_one_sentence_and_nothing_is_written(tmp_path):
    recording = Recording(SecureAggregation(FedAvg(), secret=SECRET), tmp_path, client_of=str)
    said = (
        r"round 1: secure_aggregation.threshold: at least 3 of 4 clients must remain for the masks "
        r"to be taken off, got 2; client 4: no more memory$"
    )
    with pytest.raises(RunStopped, match=said):
        list(rounds(recording, hidden, lost=(1, 2)))
    assert recorded_clients(tmp_path, 1) == []


def foreign(message, context, round_):
    client = int(context.node_config["partition-id"])
    good = hidden(message, context, round_)
    if client == 1:
        return plain(message, context, round_)
    if client == 2:
        numbers = from_record(good[SECURE])["numbers"][:-1]
        return RecordDict({SECURE: to_record({"numbers": numbers})})
    if client == 3:
        return RecordDict({SECURE: to_record({"numbers": torch.randn(26)})})
    return good


def test_an_upload_that_is_not_masked_numbers_is_a_drop_out(tmp_path):
    inner = SecureAggregation(FedAvg(), secret=SECRET)
    recording = Recording(inner, tmp_path, client_of=lambda node: str(node - 2))
    [(arrays, _)] = rounds(recording, foreign, numbers=(1,), count=9)
    told = dict(recording.failures)
    assert set(told) == {"1", "2", "3"}
    assert told["1"] == "content: must be masked numbers, got something else"
    assert told["2"] == "content: must be 26 whole numbers, got (25,) of torch.int64"
    assert told["3"] == "content: must be 26 whole numbers, got (26,) of torch.float32"
    there = (0, 4, 5, 6, 7, 8)
    total = sum(k + 1 for k in there)
    expected = sum((k + 1) * values_of(k)["w"].double() for k in there) / total
    assert torch.allclose(from_record(arrays)["w"].double(), expected, atol=1e-6)


def test_a_client_fails_closed():
    message = Message(RecordDict({"arrays": to_record(SENT)}), 3, "train")
    with pytest.raises(ValueError, match="must hold the settings of secure aggregation, got none"):
        masked_reply(message, SENT, 3, 3, SECRET)
    secure = SecureAggregation(FedAvg(), secret=SECRET)
    grid = grid_of(hidden, 3, 1)
    message = next(iter(secure.configure_train(1, to_record(SENT), ConfigRecord(), grid)))
    with pytest.raises(ValueError, match="must be a member of the masked sum, got 99"):
        masked_reply(message, SENT, 3, 99, SECRET)
    content = masked_reply(message, SENT, 3, 3, SECRET)
    assert list(content) == [SECURE]
    assert not any(isinstance(record, MetricRecord) for record in content.values())


def test_the_recorder_stands_outside(tmp_path):
    with pytest.raises(ConfigError, match="Recording must wrap it, got one that wraps Recording"):
        SecureAggregation(Recording(FedAvg(), tmp_path), secret=SECRET)


def test_a_tape_of_some_clients_is_refused(tmp_path):
    secure = SecureAggregation(FedAvg(), secret=SECRET)
    with pytest.raises(ConfigError, match=r"record.clients: must be left out .*got \['0'\]"):
        Recording(secure, Tape(tmp_path, clients=["0"]))


@pytest.mark.parametrize("members", ['{"a": 1}', "[1]", "[", "[]", '["a", "a"]', r'["\ud800"]'])
def test_foreign_members_are_named_as_damaged(tmp_path, members):
    tape = Tape(tmp_path)
    tape.write_sent(1, SENT)
    facts = {"num_examples": 3, "upload": "weights", "members": members}
    path = tmp_path / "rounds" / "0001" / "uploads.safetensors"
    save_groups(path, {"c": (SENT, facts)}, {"round": 1})
    with pytest.raises(BadRecording, match=r"uploads\.safetensors, c: members must be "):
        next(views(tmp_path, 1, LOCAL)).latest  # noqa: B018


def test_a_sum_of_gradients_reads_as_the_gradient_of_all_examples_whatever_the_batches(tmp_path):
    model = bilinear(3)
    stream = generator(0, "batches")
    batches = [
        (torch.randn(n, 4, generator=stream), torch.randint(3, (n,), generator=stream))
        for n in (2, 7, 16, 5)
    ]

    def answer(message, context, round_):
        inputs, labels = batches[int(context.node_config["partition-id"])]
        gradient = plain_gradient(model, inputs, labels)
        return masked_reply(message, gradient, len(labels), context.node_id, SECRET)

    secure = SecureAggregation(FedSGD(lr=0.1), secret=SECRET)
    recording = Recording(secure, tmp_path, upload="gradient")
    grid = grid_of(answer, 4, 1)
    sent = to_record(model.state_dict())
    messages = recording.configure_train(1, sent, ConfigRecord(), grid)
    recording.aggregate_train(1, grid.send_and_receive(messages))
    local = LocalTraining(lr=0.1, batch_size=16, upload="gradient")
    [view] = views(tmp_path, 1, local)
    inputs, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = observe(plain_gradient(model, inputs, labels), len(labels), local=local, sent=model)
    auxiliary = auxiliary_of(model, 3)
    work = workspace(view, auxiliary)
    ours, theirs = read_head(view.latest, work), read_head(whole.latest, work)
    assert ours.total == theirs.total == 30
    assert torch.allclose(ours.row_sums, theirs.row_sums, atol=1e-5)
    assert torch.allclose(ours.bias, theirs.bias.double(), atol=1e-5)
