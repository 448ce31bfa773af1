"""List the configs that come with the package, with the published AP.

    python tools/list_configs.py --loss brs --detector mask_rcnn

The numbers were published for the recipes, see docs/model_zoo.md; they were not measured with this
package. `--config-file` takes the file of a config, brloss_d2.model_zoo.get_config its name.
"""

import argparse
import sys
from collections.abc import Sequence

from brloss_d2.errors import InputError
from brloss_d2.model_zoo import config_file, list_configs, summary

FILTERS = ("data", "detector", "backbone", "loss", "schedule")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = _parser().parse_args(argv)
    chosen = {key: getattr(args, key) for key in FILTERS if getattr(args, key) is not None}
    try:
        entries = list_configs(**chosen)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.files:
        print("\n".join(config_file(entry.name) for entry in entries))
    else:
        print(summary(entries))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for key in FILTERS:
        parser.add_argument(f"--{key}", help=f"those with this {key} alone")
    parser.add_argument("--files", action="store_true", help="print their files instead")
    return parser


if __name__ == "__main__":
    sys.exit(main())
