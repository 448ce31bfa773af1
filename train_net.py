"""Train or evaluate a detector: `python train_net.py --config-file FILE [options] key=value ...`"""

import os

# Before torch starts its threads: idle ones that spin slow each other down where other programs
# need the cores too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from detectron2.engine import default_argument_parser

from brloss_d2.engine import main, run

EXAMPLES = """
examples:
  python train_net.py --config-file configs/coco/faster_rcnn_R_50_FPN_brs_1x.py --num-gpus 8
  python train_net.py --config-file FILE --resume train.output_dir=output/a
  python train_net.py --config-file output/a/config.yaml --eval-only
  python train_net.py --config-file FILE data.train=a.json data.train_images=a/ \\
      data.val=b.json data.val_images=b/ optimizer.lr=0.01 train.amp.enabled=True
  torchrun --nproc-per-node 8 train_net.py --config-file FILE
"""


if __name__ == "__main__":
    parser = default_argument_parser(epilog=EXAMPLES)
    parser.set_defaults(dist_url="auto")  # a free port, so that two runs do not collide
    run(main, parser.parse_args())
