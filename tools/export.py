"""Write a trained network as ONNX or TorchScript: the same as ``python -m allspark_mmseg export``."""

import sys

from allspark_mmseg.cli.export import main

if __name__ == '__main__':
    sys.exit(main())
