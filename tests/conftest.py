"""Settings of the whole test run."""

import torch

# As a run does (`engine.threads = 1`): small tensors are slower on several threads, by a factor of
# ten and more where the machine has other work.
torch.set_num_threads(1)
