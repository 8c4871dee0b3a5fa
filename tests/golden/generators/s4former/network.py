"""A small network of S4Former: ViT, SETR-PUP head, four auxiliary heads, and the teacher.

Executed: ``mmseg/models/backbones/vit.py``, ``mmseg/models/decode_heads/setr_up_head.py`` and
``mmseg/models/segmentors/encoder_decoder.py``.
"""

import functools
import json
import math
from typing import Any

import mmengine
import torch
from torch import Tensor, nn

from .record import Draws, Vectors
from .reference import Reference

CLASSES, SIZE, WIDTH = 5, 64, 12
THRESHOLD = 0.95
BACKBONE = dict(
    type='VisionTransformer',
    img_size=(SIZE, SIZE),
    patch_size=16,
    embed_dims=WIDTH,
    num_layers=4,
    num_heads=3,
    mlp_ratio=2,
    out_indices=(0, 1, 2, 3),
    norm_cfg=dict(type='LN', eps=1e-6, requires_grad=True),
    interpolate_mode='bilinear',
)
HEAD = dict(
    type='SETRUPHead',
    in_channels=WIDTH,
    channels=4,
    num_classes=CLASSES,
    dropout_ratio=0,
    norm_cfg=dict(type='BN'),
    kernel_size=3,
    align_corners=False,
)
METHOD = dict(
    attn_mask_seperate_head=True,
    attn_mask_weight=5,
    adaptive_attn_mask=True,
    use_PatchShuffle_w_Cutmix=True,
    PatchMix_N=2,
    negative_class_ranking=True,
    negative_class_ranking_mode='unsup_only',
)


def cross_entropy(weight: float) -> dict:
    return dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=weight)


def build_network(reference: Reference, **options: Any) -> Any:
    """Build the network.

    The release reads attention weights from an attribute that the authors' own MMCV sets; a hook sets it
    here.
    """
    head = dict(HEAD, in_index=3, num_convs=4, up_scale=2, loss_decode=cross_entropy(1.0))
    auxiliary = [
        dict(HEAD, in_index=i, num_convs=2, up_scale=4, loss_decode=cross_entropy(0.4)) for i in range(4)
    ]
    net = reference.segmentor(
        backbone=BACKBONE,
        decode_head=head,
        auxiliary_head=auxiliary,
        backbone_ema=BACKBONE,
        decode_head_ema=head,
        ema=True,
        ema_momentum=0.98,
        unsup_confidence=THRESHOLD,
        test_cfg=mmengine.ConfigDict(mode='whole'),
        **options,
    )

    def keep_attention(wrapper: Any, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        wrapper.self_attn = output[1]

    for backbone in (net.backbone, net.backbone_ema):
        for layer in backbone.layers:
            hook = functools.partial(keep_attention, layer.attn)
            layer.attn.attn.register_forward_hook(hook, with_kwargs=True)
    return net


def draw_value(draws: Draws, key: str, shape: tuple[int, ...]) -> Tensor:
    """Draw the initial value of a parameter or buffer."""
    if key.endswith('running_var'):
        return 1 + draws.grid(*shape, scale=0.2).abs()
    if key.endswith('running_mean'):
        return draws.grid(*shape, scale=0.2)
    if 'conv_seg' in key:
        return draws.grid(*shape, scale=16 if '_ema' in key else 3)
    if 'in_proj_weight' in key:
        return draws.grid(*shape, scale=1.5 / math.sqrt(shape[1]))
    if len(shape) >= 2:
        if key.endswith(('cls_token', 'pos_embed')):
            return draws.grid(*shape, scale=0.5)
        return draws.grid(*shape, scale=math.sqrt(2 / math.prod(shape[1:])))
    return draws.grid(*shape, scale=0.1) + (1 if key.endswith('weight') else 0)


class Setup:
    """The network, its initial state, and a batch.

    Args:
        reference: The released code.
        draws: Source of the random numbers.
    """

    def __init__(self, reference: Reference, draws: Draws):
        self.reference, self.draws = reference, draws
        self.net = build_network(reference, unsup_weight=1.0, strong_aug_prob=0.0, **METHOD)
        self.init = self._draw_state()
        self.net.load_state_dict(self.init)
        self.labeled = draws.blocks(2, 3, SIZE, SIZE)
        label = draws.integers(CLASSES + 1, 2, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
        label[label == CLASSES] = 255
        self.label = label
        self.strong = draws.blocks(3, 3, SIZE, SIZE)
        self.weak = self.strong + draws.blocks(3, 3, SIZE, SIZE, 16) / 4
        self._fit_statistics()

    def _draw_state(self) -> dict[str, Tensor]:
        """Draw a state; both backbones start from one checkpoint, the heads do not."""
        state: dict[str, Tensor] = {}
        for key, value in self.net.state_dict().items():
            twin = key.replace('backbone_ema.', 'backbone.')
            if twin != key:
                state[key] = state[twin]
            elif 'num_batches' in key:
                state[key] = value.clone()
            else:
                state[key] = draw_value(self.draws, key, tuple(value.shape))
        return state

    def _fit_statistics(self) -> None:
        """Set statistics and classifiers so that the teacher tells pixels apart and is sure of about 60 %."""
        norms = [module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            self.net.train()
            features = self.net.extract_feat(torch.cat([self.labeled, self.strong, self.weak]))
            for head in (self.net.decode_head, self.net.decode_head_ema, *self.net.auxiliary_head):
                head.conv_seg.bias.sub_(head(features).mean((0, 2, 3)))
            logits, classifier = self.net.decode_head_ema(features), self.net.decode_head_ema.conv_seg

            def distance(scale: float) -> float:
                confident = (logits * scale).softmax(1).amax(1) > THRESHOLD
                return abs(float(confident.double().mean()) - 0.6)

            scale = min((k / 16 for k in range(4, 65)), key=distance)
            classifier.weight.mul_(scale)
            classifier.bias.mul_(scale)
        for norm in norms:
            norm.momentum = 0.1
        for key, value in self.net.state_dict().items():
            if 'running' in key or 'conv_seg' in key:
                self.init[key] = torch.round(value * 256) / 256
        self.net.load_state_dict(self.init)


def record_state(vectors: Vectors, setup: Setup) -> None:
    """Record the initial state, without the teacher's backbone and the counters, as one flat array."""
    keys = [key for key in setup.init if 'backbone_ema.' not in key and 'num_batches' not in key]
    vectors.put_all(
        'net',
        keys=keys,
        shapes=[json.dumps(list(setup.init[key].shape)) for key in keys],
        values=torch.cat([setup.init[key].reshape(-1) for key in keys]),
    )


def record_inference(vectors: Vectors, setup: Setup) -> None:
    """Record the inference of an image that needs padding and has another original size.

    The release forgets an argument in its evaluation; it is passed here.
    """
    net, reference = setup.net, setup.reference
    image = setup.draws.blocks(1, 3, 40, 56)
    meta = dict(img_shape=(40, 56, 3), ori_shape=(50, 70, 3), flip=False)
    net.eval()
    net.encode_decode = functools.partial(reference.segmentor.encode_decode, net, adaptive_attn_mask=False)
    with torch.no_grad():
        features = net.extract_feat(image)
        logits = net.encode_decode(image, [meta])
        prediction = net.simple_test(image, [meta], rescale=True)[0]
        resized = net.whole_inference(image, [meta], True, False)
    vectors.put_all(
        'infer',
        image=image,
        original_size=[50, 70],
        logits_every_4th=logits[..., ::4, ::4],
        pred=prediction,
        logits_original_every_10th=resized[..., ::10, ::10],
        **{f'feature{i}': features[i] for i in range(4)},
    )
    embedding = setup.draws.grid(1, 1 + 9, 4)
    vectors.put_all(
        'pos_embed',
        **{'in': embedding},
        grid_in=[3, 3],
        grid_out=[5, 4],
        out=reference.vit.resize_pos_embed(embedding, (5, 4), (3, 3), 'bilinear'),
    )
