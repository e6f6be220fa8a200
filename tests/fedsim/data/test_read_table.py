import pickle

import numpy as np
import pytest

from fedsim import data
from fedsim.config import Data
from fedsim.core.errors import ConfigError
from fedsim.data.adult import adult
from fedsim.data.cifar_batches import read_batch
from tests.fedsim.data.test_adult import person, small_adult
from tests.fedsim.data.test_heart_disease import small_heart

LINES = [person(30), person(50, income=">50K"), person(60, sex="Female")]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda line: f"7, {line}", "line 1: must hold 15 values separated by commas, got 16"),
        (lambda line: line.rpartition(",")[0], "line 1: must hold 15 values .* got 14"),
        (lambda line: line.replace(",", ";"), "line 1: must hold 15 values .* got 1"),
        (lambda line: line.replace(",", "\t"), "line 1: must hold 15 values .* got 1"),
        (lambda line: line.replace("<=50K", "no"), "column income: must be one of .* got 'no'"),
        (lambda line: line.replace(">50K", "50000+"), "column income: must be one of"),
        (lambda line: line.replace("77516", "inf"), "column fnlwgt: must be a number .* got 'inf'"),
        (lambda line: line.replace("77516", "nan"), "column fnlwgt: must be a number .* got 'nan'"),
        (lambda line: line.replace("50,", "500,", 1), "column age: must be a number from 0 to 150"),
        (lambda line: line.replace("White", "3"), "column race: must be a word, got '3'"),
        (lambda line: line.replace("White", ""), "column race: must be a word, got ''"),
        (lambda line: line.replace("Female", "female"), "column sex: must be one of"),
    ],
)
def test_adult_refuses_another_table(change, sentence, tmp_path):
    small_adult(tmp_path)
    (tmp_path / "adult.data").write_text("\n".join(map(change, LINES)))
    with pytest.raises(ConfigError, match=rf"^data.root: 'adult' must be readable .*{sentence}"):
        data.load(Data(name="adult", root=str(tmp_path)), seed=0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"age, workclass, fnlwgt, education, education-num, marital-status, occupation, "
         b"relationship, race, sex, gain, loss, hours, country, income\n" + LINES[0].encode(),
         "column age: must be a number .* got 'age'"),
        (b"", "must hold rows"),
        (person(30, work="?").encode(), "must hold rows without missing values"),
        (b"\xff\xfe3\x000\x00", "must be UTF-8 text"),
    ],
    ids=["header", "empty", "all incomplete", "UTF-16"],
)  # fmt: skip
def test_adult_refuses_a_header_and_a_file_without_rows(content, sentence, tmp_path):
    small_adult(tmp_path)
    (tmp_path / "adult.data").write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        data.load(Data(name="adult", root=str(tmp_path)), seed=0)


def test_adult_reads_every_row_and_only_rows(tmp_path):
    small_adult(tmp_path)
    rows = "\r\n".join([LINES[0], "", *LINES[1:], ""])
    (tmp_path / "adult.data").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    (tmp_path / "adult.test").write_text("\n".join(LINES))  # no remark in its first line
    dataset = adult(tmp_path)
    assert dataset.labels.tolist() == dataset.test_labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("40.0,", "9,40.0,"), "must hold 14 values"),
        (lambda text: text.replace("200,", "1e9,"), "column chol: must be a number from 0 to 1000"),
        (lambda text: text.replace("200,", "inf,"), "column chol: must be a number"),
        (lambda text: text.replace("7.0,0", "7.0,0.5"), "column num: must be one of"),
        (lambda text: text.replace("7.0,0", "7.0,?"), "non-finite"),
    ],
)
def test_heart_disease_refuses_another_table(change, sentence, tmp_path):
    path = small_heart(tmp_path) / "processed.va.data"
    path.write_text(change(path.read_text()))
    with pytest.raises(ConfigError, match=sentence):
        data.load(Data(name="heart-disease", root=str(tmp_path)), seed=0)


HAR = {
    "x_int16": np.ones((40, 3), np.int16),
    "scale": np.float64(0.5),
    "subject": np.repeat([1, 2], 20),
    "y": np.arange(40) % 2,
}
CHEST = {
    f"{half}_{what}": np.zeros((4, 28, 28) if what == "images" else (4, 1), np.uint8)
    for half in ("train", "test")
    for what in ("images", "labels")
}


@pytest.mark.parametrize(
    ("name", "file", "whole", "change", "sentence"),
    [
        ("uci-har", "uci_har_train_21subjects", HAR, {"y": np.full(40, 6)}, "y: must be from 0"),
        ("uci-har", "uci_har_train_21subjects", HAR, {"scale": np.inf}, "scale: must be a pos"),
        ("uci-har", "uci_har_train_21subjects", HAR, {"subject": np.ones(39, int)}, "subject: "),
        ("uci-har", "uci_har_train_21subjects", HAR, {"x_int16": np.ones((40, 3))}, "x_int16: "),
        ("pneumonia-mnist", "pneumoniamnist", CHEST, {"train_labels": np.full((4, 1), 2)}, "0 to"),
        ("pneumonia-mnist", "pneumoniamnist", CHEST, {"test_labels": np.ones((4, 2), int)}, "lab"),
        ("pneumonia-mnist", "pneumoniamnist", CHEST, {"train_labels": np.ones((3, 1), int)}, "3 l"),
        ("pneumonia-mnist", "pneumoniamnist", CHEST, {"train_images": np.ones((4, 28, 28))}, "ima"),
    ],
)
def test_archives_of_other_arrays_are_one_sentence(name, file, whole, change, sentence, tmp_path):
    np.savez(tmp_path / f"{file}.npz", **{**whole, **change})
    with pytest.raises(ConfigError, match=f"{name}.*{sentence}"):
        data.load(Data(name=name, root=str(tmp_path)), seed=0)
    np.savez(tmp_path / f"{file}.npz", **whole)
    assert len(data.load(Data(name=name, root=str(tmp_path)), seed=0).labels)


class Evil:
    def __reduce__(self):
        return (exec, ("raise KeyboardInterrupt",))


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_batch_of_cifar_is_read_and_runs_nothing(protocol, tmp_path):
    path = tmp_path / "data_batch_1"
    rows = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    batch = {"data": rows, "labels": [0, 9, 3], "batch_label": "one", "filenames": ["a", "b", "c"]}
    path.write_bytes(pickle.dumps(batch, protocol=3))
    stored, labels = read_batch(path, "labels")
    assert np.array_equal(stored, rows)
    assert labels.tolist() == [0, 9, 3]
    path.write_bytes(pickle.dumps({"data": Evil()}, protocol=protocol))
    with pytest.raises(ValueError, match="data_batch_1: must be a batch of CIFAR, got .*exec"):
        read_batch(path, "labels")
    for wrong in (batch | {"labels": [0]}, {"labels": []}, batch | {"data": rows[:, 1:]}, 3):
        path.write_bytes(pickle.dumps(wrong, protocol=3))
        with pytest.raises(ValueError, match="data_batch_1: must"):
            read_batch(path, "labels")


def test_a_batch_of_cifar_as_python_2_wrote_it_is_read(tmp_path):
    data = bytes(range(256)) * 24
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + len(data).to_bytes(4, "little") + data + b"tb"
    )  # fmt: skip
    path = tmp_path / "test_batch"
    path.write_bytes(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x03K\x07eu.")
    rows, labels = read_batch(path, "labels")
    assert rows.shape == (2, 3072)
    assert rows.tobytes() == data
    assert labels.tolist() == [3, 7]
