"""Rank unlabeled images for annotation: the same as ``python -m allspark_mmseg suggest``."""

import sys

from allspark_mmseg.cli.suggest import main

if __name__ == '__main__':
    sys.exit(main())
