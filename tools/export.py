"""Write a trained network as ONNX or TorchScript: the same as ``python -m allspark_mmseg export``."""

from allspark_mmseg.cli.export import main

if __name__ == '__main__':
    main()
