"""How a metric's values are written (shares in percent, ratios in decibels), and attacks called."""

DECIBELS = ("psnr", "best_psnr")
ADAPTIVE = " (adaptive)"  # after an attack's name
NAMES = {
    "asr": "ASR",
    "ari": "adjusted Rand",
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
    return f"{value:.2f}" if metric in ("ari", "skill", "ssim") else f"{100 * value:.1f} %"


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

    In decibels nothing is left open at infinity: of the blind guess's squared error, the share that
    is gone.
    """
    if metric in DECIBELS:
        return 1 - 10 ** ((blind - value) / 10)
    return (value - blind) / (1 - blind) if blind < 1 else 0.0
