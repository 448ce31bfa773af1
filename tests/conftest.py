"""One thread for each test process: the suite runs them side by side."""

import torch

torch.set_num_threads(1)
