"""The table of all commands."""

from .bottleneck import bottleneck, memory
from .data import data, rates
from .inference import inference, overhead
from .options import Command
from .step import step

_DEVICE = ('device', 'threads', 'classes', 'no-peak')

COMMANDS = {
    'bottleneck': Command(bottleneck, 'voc', (*_DEVICE, 'images', 'channels', 'dtype', 'dropout')),
    'memory': Command(memory, 'coco', (*_DEVICE, 'images', 'channels'), repeats=50),
    'step': Command(
        step, 'camvid', (*_DEVICE, 'images', 'dtype', 'dropout', 'backbone', 'amp', 'checkpointing')
    ),
    'data': Command(data, 'voc', ('folder', 'count'), remark=rates),
    'inference': Command(inference, 'voc', (*_DEVICE, 'dtype', 'backbone'), remark=overhead),
}
