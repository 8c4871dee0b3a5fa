"""Networks and training steps of the AllSpark reference, from its golden vectors."""

from collections.abc import Iterator

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from allspark_mmseg.pseudo_label import PseudoLabel


def load_reference_state(module: torch.nn.Module, state: dict) -> None:
    """Load a converted released state, which lacks only the count of written rows."""
    missing, unexpected = module.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith('memory.written') for key in missing), missing


def reference_network(state: dict, *, crop: int, drop: float = 0.0) -> dict:
    """Config of the network of a released state dict, with the sizes of its tensors."""
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    depths = [
        len({k.split('.')[2] for k in state if k.startswith(f'backbone.block{s}.')}) for s in (1, 2, 3, 4)
    ]
    widths = [shapes[f'backbone.patch_embed{s}.proj.weight'][0] for s in (1, 2, 3, 4)]
    decoder = dict(
        type='allspark_mmseg.AllMLPHead',
        in_channels=widths,
        channels=shapes['decoder.decoder.linear_c4.proj.weight'][0],
        num_classes=shapes['decoder.decoder.linear_pred.weight'][0],
        norm_cfg=dict(type='BN'),
        dropout_ratio=drop,
        loss_decode=dict(type='CrossEntropyLoss', avg_non_ignore=True),
    )
    head = decoder
    if 'decoder.allspark.attn.q_u.weight' in state:
        wide, width = shapes['decoder.allspark.attn.q_u.weight']
        head = dict(
            type='allspark_mmseg.AllSparkHead',
            decoder=decoder,
            bottleneck=dict(in_channels=widths[-1], num_heads=wide // width, crop_size=crop, dropout=drop),
        )
    return dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor'),
        backbone=dict(
            type='allspark_mmseg.MixVisionTransformer',
            embed_dims=widths[0],
            num_layers=depths,
            num_heads=[width // widths[0] for width in widths],
        ),
        decode_head=head,
        test_cfg=dict(mode='whole'),
    )


def train_four_steps(model: torch.nn.Module, vectors: dict) -> Iterator[tuple[int, dict, PseudoLabel]]:
    """Train on the recorded batches; yield (step, losses, pseudo-labels)."""
    groups = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups['backbone' in name].append(parameter)
    optimizer = torch.optim.SGD(
        [dict(params=groups[True], lr=0.002), dict(params=groups[False], lr=0.02)],
        momentum=0.9,
        weight_decay=1e-4,
    )
    for t in range(4):
        model.memory_ready.fill_(t >= 2)
        inputs = dict(labeled=vectors[f'{t}.labeled'], weak=vectors[f'{t}.unlabeled'])
        samples = [
            SegDataSample(gt_sem_seg=PixelData(data=mask[None].long())) for mask in vectors[f'{t}.mask']
        ]
        pseudo = []
        original = model.make_pseudo_labels
        model.make_pseudo_labels = lambda *args, original=original, pseudo=pseudo: (
            pseudo.append(original(*args)) or pseudo[0]
        )
        losses = model.loss(inputs, dict(labeled=samples))
        model.make_pseudo_labels = original
        optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        optimizer.step()
        yield t, losses, pseudo[0]
