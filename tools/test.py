"""Evaluate a checkpoint: the same as ``python -m allspark_mmseg test``."""

from allspark_mmseg.cli.test import main

if __name__ == '__main__':
    main()
