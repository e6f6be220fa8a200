"""The data sets by name."""

from fedsim.core.catalog import Entry, collect

MODULES = (
    "digits",
    "mnist",
    "fashion_mnist",
    "cifar",
    "svhn",
    "olivetti",
    "pneumonia_mnist",
    "adult",
    "heart_disease",
    "uci_har",
    "messages",
    "sms_spam",
    "banking77",
    "paint_girl",
)
DATASETS: dict[str, Entry] = collect("fedsim.data", MODULES, "DATASET")
