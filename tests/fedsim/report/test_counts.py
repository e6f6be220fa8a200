import torch
from matplotlib.figure import Figure

from adversary.grading.truth import read_truth
from fedsim.report.counts import Counts, _classes, counts_picture
from fedsim.report.data import RunData
from fedsim.run.run_folder import RunFolder
from tests.builders import small_config


def test_the_counts_drawn_are_the_truth_and_the_answers(recordings, monkeypatch):
    folder = RunFolder(recordings.of(small_config()).path)
    drawn = []
    monkeypatch.setattr(
        "fedsim.report.counts._draw", lambda counts, *_: drawn.extend(counts) or Figure()
    )
    counts_picture(RunData(folder), "3")
    assert [found.round for found in drawn] == [1, 2, 3]
    for found in drawn:
        true = torch.bincount(read_truth(folder.truth, found.round, "3").labels, minlength=10)
        assert found.true.tolist() == true.tolist()[: len(found.true)]
        assert found.true.sum() == true.sum()
        assert found.inferred
        for name, inferred in found.inferred.items():
            assert inferred.tolist() == folder.guesses(found.round)[f"{name}/3"].tolist()


def test_of_many_classes_those_with_the_largest_counts_are_shown():
    true = torch.zeros(100).numpy()
    true[[7, 99]] = 5
    inferred = torch.arange(100).numpy() / 100
    assert _classes([Counts(1, true, {"llg": inferred}, scaled=False)]) == (
        [7, *range(61, 100)], 100,
    )  # fmt: skip
    assert _classes([Counts(1, None, {"llg": inferred[:30]}, scaled=False)]) == ([*range(30)], 30)
