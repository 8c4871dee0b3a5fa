"""Make the vectors of AllSpark's bottleneck, memory and training steps from a checkout of AllSpark.

Reference: https://github.com/xmed-lab/AllSpark. Executed: ``AllSpark``, ``CrossAttnMem`` and ``SemiDecoder``
of ``model/semseg/allspark.py`` and ``MixVisionTransformer`` of ``model/backbone/mit.py``. timm is replaced by
PyTorch and MMCV. The training step itself follows the paper's description.

Writes ``allspark_bottleneck.npz``, ``allspark_bottleneck_narrow.npz``, ``semantic_memory.npz`` and
``allspark_train.npz``.
"""

from functools import partial
from types import ModuleType
from typing import Any

import torch
from common import add_to_path, make_parser, save, stand_in_for_timm
from mmengine.model import revert_sync_batchnorm
from torch import Tensor, nn

CLASSES, CROP = 4, 65
DIMS, HEADS = [8, 16, 40, 64], [1, 2, 5, 8]
STEPS, WARMUP = 4, 2
LEARNING_RATE = 0.002


def run_bottleneck(net: Any, x: Tensor, logits: Tensor) -> dict:
    """Record forward and backward passes in warm-up and with memory, and the evaluation mode.

    Args:
        net: The released bottleneck.
        x: Features (2 B, C, S, S), labeled images first.
        logits: Logits of the pseudo-labels (B, K, 8 S, 8 S).
    """
    init = {key: value.clone() for key, value in net.state_dict().items()}
    vectors: dict = {f'init.{key}': value for key, value in init.items()}
    vectors.update(x=x, pseudo_logits=logits)
    for tag, use_memory in (('warmup', False), ('memory', True)):
        net.load_state_dict(init)
        net.train()
        net.zero_grad()
        features = x.clone().requires_grad_(True)
        y = net(features, None, logits, use_memory)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        vectors[f'{tag}.y'], vectors[f'{tag}.grad_x'] = y, features.grad
        for name, parameter in net.named_parameters():
            grad = parameter.grad
            vectors[f'{tag}.grad.{name}'] = torch.zeros_like(parameter) if grad is None else grad.clone()
        vectors[f'{tag}.kv_queue'] = net.attn.kv_queue.clone()
        vectors[f'{tag}.queue_ptr'] = net.attn.queue_ptr.clone()
    net.eval()
    with torch.no_grad():
        vectors['eval.batch2'] = net(x[:2], None, None, False)
        vectors['eval.single0'] = net(x[:1], None, None, False)
    return vectors


def record_bottleneck(reference: ModuleType, seed: int) -> dict:
    """Record a bottleneck as wide as its input."""
    torch.manual_seed(seed)
    channels, heads, classes, size, batch = 24, 2, 4, 5, 2
    net = reference.AllSpark(heads, channels, channels, channels, 0.0, classes, size * size)
    net.attn.kv_queue.normal_()
    x = torch.randn(2 * batch, channels, size, size)
    return run_bottleneck(net, x, torch.randn(batch, classes, 8 * size, 8 * size))


def record_narrow_bottleneck(reference: ModuleType, seed: int) -> dict:
    """Record a bottleneck whose width differs from its input's.

    The norms have scales and shifts of their own. The scores vary so little that the epsilon of the instance
    norm has an effect.
    """
    torch.manual_seed(seed + 7)
    channels, width, heads, classes, size, batch = 12, 20, 3, 6, 4, 3
    net = reference.AllSpark(heads, width, channels, channels, 0.0, classes, size * size)
    with torch.no_grad():
        for norm in (net.attn_norm, net.encoder_norm):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
        net.attn.q_u.weight.mul_(0.003)
        net.attn.q_l2u.weight.mul_(0.003)
        net.attn.kv_queue.normal_()
    x = torch.randn(2 * batch, channels, size, size)
    return run_bottleneck(net, x, 3 * torch.randn(batch, classes, 8 * size, 8 * size))


def record_memory(reference: ModuleType, seed: int) -> dict:
    """Record a sequence of writes to the memory that wraps around its end."""
    torch.manual_seed(seed + 1)
    memory = reference.CrossAttnMem(1, 12, 0.0, 3, 4)
    memory.kv_queue.normal_()
    vectors = {'start.kv_queue': memory.kv_queue.clone(), 'start.queue_ptr': memory.queue_ptr.clone()}
    for t in range(9):
        embedding = torch.randn(4, 12)
        classes = torch.randint(0, 3, (12,))
        if t == 4:
            classes[:] = 1
        if t == 6:
            classes = torch.randint(0, 2, (12,))
        memory._dequeue_and_enqueue(embedding, classes)
        vectors.update({f'{t}.emb': embedding, f'{t}.cls': classes})
        vectors[f'{t}.kv_queue'] = memory.kv_queue.clone()
        vectors[f'{t}.queue_ptr'] = memory.queue_ptr.clone()
    return vectors


class Network(nn.Module):
    """A small MiT with AllSpark's decoder."""

    def __init__(self, reference: ModuleType, mit: ModuleType):
        super().__init__()
        self.backbone = mit.MixVisionTransformer(
            embed_dims=DIMS,
            num_heads=HEADS,
            mlp_ratios=[4] * 4,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            depths=[1, 2, 1, 1],
            sr_ratios=[8, 4, 2, 1],
            drop_rate=0.0,
            drop_path_rate=0.0,
        )
        self.decoder = reference.SemiDecoder(
            num_heads=2,
            num_class=CLASSES,
            in_planes=DIMS,
            image_size=CROP,
            warmup_epoch=WARMUP,
            embedding_dim=32,
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, K, H, W)."""
        return self.decoder(self.backbone(image), *image.shape[-2:])


def build_network(reference: ModuleType, mit: ModuleType) -> Any:
    """Build the small network without dropout and with plain batch norms."""
    net = revert_sync_batchnorm(Network(reference, mit))
    for module in net.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    return net


def predict_pseudo_labels(net: Any, unlabeled: Tensor) -> Tensor:
    """Return the pseudo-labels (N, H, W) of images (N, 3, H, W) and hand their logits to the decoder."""
    with torch.no_grad():
        net.eval()
        logits = net(unlabeled).detach()
        top = logits.topk(2, 1)[0]
        print('smallest margin between the two best classes', float((top[:, 0] - top[:, 1]).min()))
        net.decoder.set_pseudo_prob_map(logits)
        return logits.argmax(1)


def train_step(net: Any, optimizer: torch.optim.Optimizer, t: int) -> dict:
    """Draw a batch, train on it, and return what the step saw and its losses."""
    cross_entropy = nn.CrossEntropyLoss(ignore_index=255)
    labeled, unlabeled = torch.randn(2, 3, CROP, CROP), torch.randn(2, 3, CROP, CROP)
    mask = torch.randint(0, CLASSES, (2, CROP, CROP))
    mask[:, :6] = 255
    net.decoder.set_SMem_status(epoch=t)
    pseudo = predict_pseudo_labels(net, unlabeled)
    net.train()
    logits_labeled, logits_unlabeled = net(torch.cat((labeled, unlabeled))).split([2, 2])
    loss_x, loss_u = cross_entropy(logits_labeled, mask), cross_entropy(logits_unlabeled, pseudo)
    loss = (loss_x + loss_u) / 2
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    step = dict(
        labeled=labeled,
        unlabeled=unlabeled,
        mask=mask.to(torch.uint8),
        pseudo=pseudo.to(torch.uint8),
        loss_x=loss_x,
        loss_u=loss_u,
        loss=loss,
    )
    return {f'{t}.{key}': value for key, value in step.items()}


def record_training(reference: ModuleType, mit: ModuleType, seed: int) -> dict:
    """Record four training steps, two of them in warm-up, and the trained network's logits."""
    torch.manual_seed(seed + 2)
    net = build_network(reference, mit)
    groups = [
        {'params': net.backbone.parameters(), 'lr': LEARNING_RATE},
        {'params': net.decoder.parameters(), 'lr': 10 * LEARNING_RATE},
    ]
    optimizer = torch.optim.SGD(groups, lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4)
    vectors: dict = {f'init.{key}': value.clone() for key, value in net.state_dict().items()}
    for t in range(STEPS):
        vectors.update(train_step(net, optimizer, t))
    vectors.update({f'final.{key}': value.clone() for key, value in net.state_dict().items()})
    net.eval()
    net.decoder.set_SMem_status(epoch=9, isVal=True)
    image = torch.randn(1, 3, 97, 81)
    with torch.no_grad():
        vectors['eval.image'], vectors['eval.logits'] = image, net(image)
        # with faint embeddings and reductions, the two epsilons of the layer norms have an effect
        faint = {
            key: value * 0.003 if '.sr.' in key or ('patch_embed' in key and '.proj.' in key) else value
            for key, value in net.state_dict().items()
        }
        net.load_state_dict(faint)
        vectors['faint.logits'] = net(image)
    return vectors


def main(argv: list[str] | None = None) -> None:
    args = make_parser(__doc__, seed=3).parse_args(argv)
    stand_in_for_timm()
    add_to_path(args.reference)
    from model.backbone import mit
    from model.semseg import allspark

    torch.set_num_threads(1)
    save(args.out / 'allspark_bottleneck.npz', record_bottleneck(allspark, args.seed))
    save(args.out / 'allspark_bottleneck_narrow.npz', record_narrow_bottleneck(allspark, args.seed))
    save(args.out / 'semantic_memory.npz', record_memory(allspark, args.seed))
    save(args.out / 'allspark_train.npz', record_training(allspark, mit, args.seed))


if __name__ == '__main__':
    main()
