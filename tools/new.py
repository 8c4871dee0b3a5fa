"""Lists and configs for a folder of images: the same as ``python -m allspark_mmseg new``."""

import sys

from allspark_mmseg.cli.new import main

if __name__ == '__main__':
    sys.exit(main())
