"""Write the checkpoint of an untrained detector: `make_weights.py CONFIG FILE`.

One called published.pth has the names of mmdetection.
"""

import sys

import torch
from detectron2.config import instantiate

from brloss_d2.checkpoint import convert_file
from brloss_d2.engine import load_config

config, file = sys.argv[1:]
model = instantiate(load_config(config, ())[0].model)
torch.save({"model": model.state_dict()}, file)
if file == "published.pth":
    torch.save(convert_file(file, None).checkpoint(), file)
