"""List the images inside tar files: the same as ``python -m allspark_mmseg shards``."""

from allspark_mmseg.cli.shards import main

if __name__ == '__main__':
    raise SystemExit(main())
