"""Vectors of CSS's evaluation and of its networks (``generalframeworks/networks/``, ``util/``)."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import fill_by_rule
from torch import Tensor, nn

from .record import Draws, Vectors
from .reference import Reference

HOOKED = ('resnet_layer1', 'resnet_layer2', 'resnet_layer4', 'ASPP', 'project')


def record_evaluation(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record the confusion matrix and the mIoU of five classes, without and with an absent class."""
    for k, absent in enumerate((None, 3)):
        prediction, label = draws.integers(0, 5, 400), draws.integers(-1, 5, 400)
        if absent is not None:
            prediction[prediction == absent] = 0
            label[label == absent] = 0
        matrix = reference.matrix_class(num_classes=5, fmt=':6.4f')
        matrix.update(prediction[:150], label[:150])
        matrix.update(prediction[150:], label[150:])
        miou = reference.mean_iou(matrix.mat)
        vectors.put_all(f'miou.{k}', pred=prediction, label=label, matrix=matrix.mat, miou=miou)


def plain_resnet101(reference: Reference) -> nn.Module:
    """Build torchvision's ResNet-101 from the blocks of the checkout.

    The release takes this network from torchvision: plain stem, strides (1, 2, 2, 2), no dilation.
    """
    block = reference.resnet.Bottleneck
    net = reference.resnet.ResNet_Stem(
        block, [3, 4, 23, 3], replace_stride_with_dilation=None, multi_grid=False
    )
    net.conv1, net.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
    net.maxpool = nn.MaxPool2d(3, 2, 1)
    net.inplanes = 64
    net.layer1 = net._make_layer(block, 64, 3)
    return net


def run_network(net: nn.Module, image: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Return logits, representations and the outputs of the hooked modules, in the order of their calls."""
    stages: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: stages.update({name: output})

    for name in HOOKED:
        getattr(net, name).register_forward_hook(keep(name))
    with torch.no_grad():
        logits, rep = net(image)
    return logits, rep, stages


def as_text(items: Any) -> np.ndarray:
    """Return strings as an array of bytes."""
    return np.array([item.encode() for item in items])


def record_network(
    reference: Reference,
    vectors: Vectors,
    name: str,
    backbone: nn.Module,
    size: tuple[int, int],
    rule_tensor: Callable,
) -> None:
    """Record a network in evaluation mode on an image of this size (H, W)."""
    net = reference.network_class(backbone, num_classes=21, output_dim=256, dilate_scale=8).eval()
    spec = fill_by_rule(net, rule_tensor)
    image = torch.from_numpy(rule_tensor('image', (1, 3, *size)))
    logits, rep, stages = run_network(net, image)
    prefix = f'network.{name}'
    vectors.put_all(
        prefix,
        image_size=size,
        parameters=sum(parameter.numel() for parameter in net.parameters()),
        logits_every_3rd=logits[:, :, ::3, ::3],
        logits_mean=logits.mean((2, 3)),
        logits_std=logits.std((2, 3)),
        argmax=logits.argmax(1),
        rep_first_16_every_4th=rep[:, :16, ::4, ::4],
        rep_mean=rep.mean((2, 3)),
        rep_std=rep.std((2, 3)),
        stage_shapes=[list(value.shape) for value in stages.values()],
        stage_mean_std=[[float(value.mean()), float(value.std())] for value in stages.values()],
    )
    vectors.put_exact(f'{prefix}.stages', as_text(stages))
    vectors.put_exact(f'{prefix}.keys', as_text(spec))
    vectors.put_exact(f'{prefix}.shapes', as_text(','.join(map(str, shape)) for shape in spec.values()))


def record_networks(reference: Reference, vectors: Vectors, rule_tensor: Callable) -> None:
    """Record the network with the plain and with the deep stem."""
    backbone = plain_resnet101(reference)
    record_network(reference, vectors, 'plain', backbone, (65, 97), rule_tensor)
    backbone = reference.resnet.resnet101(pretrained=False)
    record_network(reference, vectors, 'deep_stem', backbone, (64, 96), rule_tensor)
