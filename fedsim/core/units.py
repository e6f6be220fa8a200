"""How a metric's values are written: shares in percent, ratios in decibels, ε as a number."""

DECIBELS = ("psnr", "best_psnr")
NAMES = {
    "asr": "ASR",
    "auroc": "AUROC",
    "psnr": "PSNR",
    "best_psnr": "best PSNR",
    "ssim": "SSIM",
    "match_rate": "match rate",
}


def written(metric: str, value: float | None) -> str:
    """Return a value of a metric as text; a dash for none."""
    if value is None:
        return "–"
    if metric in DECIBELS:
        return f"{value:.1f} dB"
    if metric.startswith("epsilon"):
        return f"{value:.3g}"
    return f"{value:.2f}" if metric in ("skill", "ssim") else f"{100 * value:.1f} %"


def name_of(metric: str) -> str:
    """Return what a metric is called in a table's head."""
    return NAMES.get(metric, metric)


def beyond_blind(metric: str, value: float, blind: float) -> float:
    """Return what an attack finds of what the blind guess leaves open: 0 as blind, at most 1.

    In decibels nothing is left open at infinity: of the blind guess's squared error, the share that
    is gone.
    """
    if metric in DECIBELS:
        return 1 - 10 ** ((blind - value) / 10)
    return (value - blind) / (1 - blind) if blind < 1 else 0.0
