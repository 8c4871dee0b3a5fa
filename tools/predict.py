"""Predict a folder of images: the same as ``python -m allspark_mmseg predict``."""

import sys

from allspark_mmseg.cli.predict import main

if __name__ == '__main__':
    sys.exit(main())
