"""Train a segmentor: the same as ``python -m allspark_mmseg train``."""

from allspark_mmseg.cli.train import main

if __name__ == '__main__':
    main()
