"""Write an HTML page about trainings: the same as ``python -m allspark_mmseg report``."""

import sys

from allspark_mmseg.cli.report import main

if __name__ == '__main__':
    sys.exit(main())
