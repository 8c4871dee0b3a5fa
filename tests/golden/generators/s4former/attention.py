"""Vectors of S4Former's patch-adaptive self-attention (PASA).

Executed: ``mmseg/models/backbones/vit.py`` and, for one case, ``mmseg/models/backbones/mit.py``.
"""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from .network import SIZE, Setup
from .record import Vectors

WEIGHT, PLAIN_WEIGHT = 5, 50


class AttentionRecorder:
    """Runs the small network with an attention bias and keeps what its layers saw.

    ``queries`` and ``biases`` hold an entry for each layer.
    """

    def __init__(self, setup: Setup):
        self.net = setup.net
        self.queries: list[Tensor] = []
        self.biases: list[Tensor] = []
        for layer in self.net.backbone.layers:
            layer.attn.attn.register_forward_hook(self._keep, with_kwargs=True)

    def _keep(self, module: Any, args: Any, kwargs: Any, output: Any) -> None:
        self.queries.append(kwargs['query'])
        self.biases.append(kwargs['attn_mask'])

    def run(
        self, images: Tensor, unconfident: Tensor, weight: int = WEIGHT, adaptive: bool = True
    ) -> list[Tensor]:
        """Return the features of images (N, 3, H, W); ``unconfident`` is (N, H / 16, W / 16)."""
        self.queries.clear()
        self.biases.clear()
        with torch.no_grad():
            return self.net.extract_feat(
                images, attn_mask=unconfident, attn_mask_weight=weight, adaptive_attn_mask=adaptive
            )


def record_layers(vectors: Vectors, setup: Setup, recorder: AttentionRecorder) -> None:
    """Record the bias, and features and attention with and without it."""
    images = setup.draws.blocks(3, 3, SIZE, SIZE)
    unconfident = torch.stack([setup.draws.distinct(4) for _ in range(3)])
    features = recorder.run(images, unconfident)
    bias, queries = recorder.biases[0], list(recorder.queries)
    assert all(torch.equal(other, bias) for other in recorder.biases)
    vectors.put_all('pasa', image=images, unconfident=unconfident, bias=bias, **{'lambda': WEIGHT})
    for i in (0, 3):
        vectors.put(f'pasa.feature{i}', features[i])
        attention, query = setup.net.backbone.layers[i].attn.attn, queries[i]

        def weights(attention: Any = attention, query: Tensor = query, **options: Any) -> Tensor:
            with torch.no_grad():
                return attention.forward(query, query, query, average_attn_weights=False, **options)[1][1]

        vectors.put(f'pasa.attention{i}.image1', weights(attn_mask=bias))
        if i == 0:
            vectors.put('pasa.attention0_without_bias.image1', weights())
    with torch.no_grad():
        vectors.put('pasa.feature3_without_bias', setup.net.extract_feat(images)[3])


def record_biases(vectors: Vectors, setup: Setup, recorder: AttentionRecorder) -> None:
    """Record biases for nine patches: an odd number, all confident, ties, and without adaptation."""
    draws = setup.draws
    images = draws.blocks(2, 3, 48, 48)
    cases = dict(odd=torch.stack([draws.distinct(3) for _ in range(2)]), all_confident=torch.zeros(2, 3, 3))
    for tag, unconfident in cases.items():
        recorder.run(images, unconfident)
        vectors.put_all(f'pasa.{tag}', unconfident=unconfident, bias=recorder.biases[0])

    unconfident = torch.from_numpy(draws.random.choice([0.0, 0.25, 1.0], (2, 3, 3)))
    unconfident[1] = 1.0
    recorder.run(images, unconfident)
    vectors.put_all('as_released.pasa_ties', unconfident=unconfident, bias=recorder.biases[0])

    unconfident = draws.distinct(3)[None]
    recorder.run(images[:1], unconfident, PLAIN_WEIGHT, adaptive=False)
    entries = {'unconfident': unconfident, 'bias': recorder.biases[0], 'lambda': PLAIN_WEIGHT}
    vectors.put_all('as_released.pasa_plain', **entries)


def record_mit_bias(vectors: Vectors, setup: Setup) -> None:
    """Record the bias of the MiT variant, from a backbone whose only layer does nothing."""
    biases: list[Tensor] = []

    def block(x: Tensor, size: tuple[int, int], mask: Any = None) -> Tensor:
        biases.append(mask)
        return x

    def embed(x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        return x, (3, 3)

    unconfident = setup.draws.distinct(3, parts=64)[None]
    backbone = SimpleNamespace(layers=[[embed, [block], lambda x: x]], out_indices=())
    setup.reference.mit.forward(
        backbone,
        torch.zeros(1, 9, 2),
        attn_mask=unconfident,
        attn_mask_weight=WEIGHT,
        adaptive_attn_mask=True,
    )
    entries = {'unconfident': unconfident, 'bias': biases[0], 'lambda': WEIGHT}
    vectors.put_all('as_released.pasa_mit', **entries)


def record_group(vectors: Vectors, setup: Setup) -> None:
    """Record everything about the attention."""
    recorder = AttentionRecorder(setup)
    record_layers(vectors, setup, recorder)
    record_biases(vectors, setup, recorder)
    record_mit_bias(vectors, setup)
