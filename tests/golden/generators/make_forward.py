"""Make ``*_forward.npz``, outputs of whole networks, from a checkout of AllSpark, UniMatch or UniMatch V2.

References and the files that are executed:

* ``allspark``: https://github.com/xmed-lab/AllSpark, ``model/model_helper.py`` (``ModelBuilder`` and the
  networks that the files in ``configs/`` name). timm is replaced by PyTorch and MMCV.
* ``unimatch``: https://github.com/LiheYoung/UniMatch, ``model/semseg/deeplabv3plus.py`` and
  ``model/backbone/``.
* ``unimatch-v2``: https://github.com/LiheYoung/UniMatch-V2, ``model/semseg/dpt.py`` and the backbone that it
  imports.

No weights are needed: ``rule_state.py`` gives every network its state.
"""

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from common import add_to_path, fill_by_rule, load_rule, make_parser, save, stand_in_for_timm
from torch import nn

ALLSPARK = {
    'allspark_pascal_mit_b5': ('pascal_allspark', 'mit_b5'),
    'allspark_pascal_mit_b2': ('pascal_allspark', 'mit_b2'),
    'allspark_cityscapes_mit_b3': ('cityscapes_allspark', 'mit_b3'),
    'baseline_pascal_mit_b4': ('pascal_baseline_sup', 'mit_b4'),
}
UNIMATCH = {'resnet50': 21, 'resnet101': 19, 'xception': 81}  # number of classes
UNIMATCH_V2 = {
    'small': dict(encoder_size='small', features=64, out_channels=[48, 96, 192, 384]),
    'base': dict(encoder_size='base', features=128, out_channels=[96, 192, 384, 768]),
}


def allspark_networks(checkout: Path) -> Iterator[tuple[str, nn.Module]]:
    """Build the networks of AllSpark's configs; the backbones are those named above."""
    import yaml
    from mmengine.model import revert_sync_batchnorm

    stand_in_for_timm()
    add_to_path(checkout)
    from model.model_helper import ModelBuilder

    for name, (config, backbone) in ALLSPARK.items():
        cfg = yaml.safe_load((checkout / 'configs' / f'{config}.yaml').read_text())['model']
        options = dict(cfg['backbone']['kwargs'], pretrained=False)
        options.pop('embed_dims')  # the factory ignores it
        cfg['backbone'] = dict(type=f'model.backbone.mit.{backbone}', kwargs=options)
        net = revert_sync_batchnorm(ModelBuilder(cfg))
        if hasattr(net.decoder, 'set_SMem_status'):
            net.decoder.set_SMem_status(epoch=99, isVal=True)
        yield name, net


def unimatch_networks(checkout: Path) -> Iterator[tuple[str, nn.Module]]:
    """Build UniMatch's DeepLabv3+ networks without pretrained weights."""
    add_to_path(checkout)
    from model.backbone import resnet
    from model.semseg import deeplabv3plus

    def without_weights(factory: Callable) -> Callable:
        @functools.wraps(factory)
        def build(pretrained: bool = False, **options: object) -> nn.Module:
            return factory(pretrained=False, **options)

        return build

    for name in ('resnet50', 'resnet101'):
        vars(resnet)[name] = without_weights(vars(resnet)[name])
    vars(deeplabv3plus)['xception'] = without_weights(deeplabv3plus.xception)
    for name, classes in UNIMATCH.items():
        cfg = dict(
            backbone=name,
            replace_stride_with_dilation=[False, False, True],
            dilations=[6, 12, 18],
            nclass=classes,
        )
        yield f'unimatch_{name}', deeplabv3plus.DeepLabV3Plus(cfg)


def unimatch_v2_networks(checkout: Path) -> Iterator[tuple[str, nn.Module]]:
    """Build UniMatch V2's DPT networks."""
    add_to_path(checkout)
    from model.semseg.dpt import DPT

    for name, options in UNIMATCH_V2.items():
        yield f'unimatch_v2_dinov2_{name}', DPT(**options, nclass=21)


# the function that builds the networks, and the size of their image
FAMILIES = {
    'allspark': (allspark_networks, (97, 129)),
    'unimatch': (unimatch_networks, (97, 129)),
    'unimatch-v2': (unimatch_v2_networks, (98, 126)),
}


@torch.no_grad()
def record_forward(net: nn.Module, size: tuple[int, int], rule_tensor: Callable) -> dict:
    """Record the logits for an image of this size (H, W); state and image come from the rule."""
    spec = fill_by_rule(net, rule_tensor)
    logits = net.eval()(torch.from_numpy(rule_tensor('image', (1, 3, *size))))
    return dict(
        image_size=size,
        logits_every_4th=logits[:, :, ::4, ::4].float(),
        logits_mean=logits.mean((2, 3)),
        logits_std=logits.std((2, 3)),
        argmax=logits.argmax(1).to(torch.uint8),
        keys=np.array(list(spec)),
        shapes=np.array([json.dumps(list(shape)) for shape in spec.values()]),
    )


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument('family', choices=FAMILIES, help='networks to run; CHECKOUT is their repository')
    args = parser.parse_args(argv)
    torch.set_num_threads(2)
    rule_tensor = load_rule(args.out, args.seed)
    build_networks, size = FAMILIES[args.family]
    for name, net in build_networks(args.reference):
        save(args.out / f'{name}_forward.npz', record_forward(net, size, rule_tensor))


if __name__ == '__main__':
    main()
