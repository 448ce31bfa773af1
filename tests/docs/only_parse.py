"""Parse the arguments of train_net.py and load the config with its overrides; train nothing."""

import argparse
import sys

from brloss_d2 import engine
from brloss_d2.cli import train


def only_load(program: object, args: argparse.Namespace, check: object) -> None:
    engine.load_config(train.find_config(args.config_file), args.opts)


engine.run = only_load
sys.exit(train.main())
