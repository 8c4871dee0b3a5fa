"""Draw what the network will see: the same as ``python -m allspark_mmseg look``."""

import sys

from allspark_mmseg.cli.look import main

if __name__ == '__main__':
    sys.exit(main())
