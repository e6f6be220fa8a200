"""The scale of each metric, how its values are written, and what attacks are called."""

import math
from dataclasses import dataclass
from typing import Literal

ADAPTIVE = " (adaptive)"  # after an attack's name
NAMES = {
    "asr": "ASR",
    "ari": "adjusted Rand",
    "auroc": "AUROC",
    "psnr": "PSNR",
    "best_psnr": "best PSNR",
    "ssim": "SSIM",
    "match_rate": "match rate",
    "feature_similarity": "HOG similarity",
    "lpips_similarity": "1 − LPIPS",
    "cell_accuracy": "right cells",
    "category_accuracy": "categories",
    "number_accuracy": "numbers",
    "record_match": "records",
    "beyond_auxiliary": "beyond aux",
    "confidence_auroc": "confidence AUROC",
    "uncertainty_correlation": "uncertainty ~ error",
    "f1": "F1",
    "token_f1": "token F1",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rare_words": "rare words",
    "exposure": "exposure",
    "rare_recall": "recall of rare tokens",
}


@dataclass(frozen=True)
class Scale:
    """What the values of a metric are.

    Attributes:
        unit: In which they are written; shares in percent.
        low: The smallest that is possible.
        high: The largest.
    """

    unit: Literal["%", "dB", "bits", ""] = "%"
    low: float = 0.0
    high: float = 1.0

    @property
    def ends(self) -> bool:
        """Whether both ends are known, so that a picture can show the whole of it."""
        return math.isfinite(self.low) and math.isfinite(self.high)


SHARE = Scale()
DECIBELS = Scale("dB", -math.inf, math.inf)
BITS = Scale("bits", -math.inf, math.inf)
SCALES = {
    "psnr": DECIBELS,
    "best_psnr": DECIBELS,
    "bits": BITS,
    "information": BITS,
    "exposure": Scale("bits", 0.0, math.inf),
    "cross_entropy": BITS,
    "ssim": Scale("", -1.0, 1.0),
    "feature_similarity": Scale("", -1.0, 1.0),
    "lpips_similarity": Scale("", -math.inf, 1.0),
    "uncertainty_correlation": Scale("", -1.0, 1.0),
    "ari": Scale("", -1.0, 1.0),
    "skill": Scale("", -math.inf, 1.0),
    "loss": Scale("", 0.0, math.inf),
    "perplexity": Scale("", 1.0, math.inf),
}


def scale_of(metric: str) -> Scale:
    """Return the scale of a metric; one that is not in `SCALES` is a share."""
    return Scale("", 0.0, math.inf) if metric.startswith("epsilon") else SCALES.get(metric, SHARE)


def written(metric: str, value: float | None) -> str:
    """Return a value of a metric as text; a dash for none."""
    if value is None:
        return "–"
    if metric.startswith("epsilon"):
        return f"{value:.3g}"
    unit = scale_of(metric).unit
    texts = {"%": f"{100 * value:.1f} %", "dB": f"{value:.1f} dB", "bits": f"{value:.2f} bits"}
    return texts.get(unit, f"{value:.2f}")


def name_of(metric: str) -> str:
    """Return what a metric is called in a table's head."""
    return NAMES.get(metric, metric)


def title_of(attack: str, *, adaptive: bool) -> str:
    """Return what an attack is called in tables, pictures and files beside the ledger.

    The one that knows the clients' defense stands beside the one that does not.
    """
    return f"{attack}{ADAPTIVE}" if adaptive else attack


def attack_of(title: str) -> tuple[str, bool]:
    """Return the attack's name, and whether it is the one that knows the defense."""
    return title.removesuffix(ADAPTIVE), title.endswith(ADAPTIVE)


def beyond_blind(metric: str, value: float, blind: float) -> float:
    """Return what an attack finds of what the blind guess leaves open: 0 as blind, at most 1.

    In decibels nothing is left open at infinity: it is the share of the blind guess's squared error
    that is gone. In bits it is the share that is excluded of the values that the guess leaves.
    """
    unit = scale_of(metric).unit
    if unit == "dB":
        return 1 - 10 ** ((blind - value) / 10)
    if unit == "bits":
        return 1 - 2 ** (blind - value)
    return (value - blind) / (1 - blind) if blind < 1 else 0.0
