"""List the images inside tar files: the same as ``python -m allspark_mmseg shards``."""

import sys

from allspark_mmseg.cli.shards import main

if __name__ == '__main__':
    sys.exit(main())
