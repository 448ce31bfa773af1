"""Parse the arguments of train_net.py and load the config with its overrides; train nothing."""

from detectron2.engine import default_argument_parser

from brloss_d2.engine import load_config

args = default_argument_parser().parse_args()
load_config(args.config_file, args.opts)
