"""Settings of the whole test run."""

import gc

import torch

# As a run does (`engine.threads = 1`): small tensors are slower on several threads, by a factor of
# ten and more where the machine has other work.
torch.set_num_threads(1)


def pytest_collection_finish():
    """Leave what was imported out of every later search for garbage.

    Flower asks for one per array in some strategies; with torch imported each takes 0.1 s.
    """
    gc.collect()
    gc.freeze()
