"""The data sets by name."""

from fedsim.core.catalog import Entry
from fedsim.core.records import Records

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
DATASETS = Records[Entry]("fedsim.data", MODULES, "DATASET")
