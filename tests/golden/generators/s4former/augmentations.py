"""Vectors of S4Former's PatchShuffle and CutMix (``mmseg/utils/generate_unsup_data.py``)."""

import torch
from torch import Tensor

from .record import Draws, Vectors, differs_from_inverse, is_identity, seed_global_generators
from .reference import Reference

# batch, channels, height, width, patch size, patches in the side of a block
SHUFFLES = {'a': (3, 2, 32, 32, 4, 2), 'b': (3, 1, 48, 48, 16, 1)}
BOX_SIZES = ((512, 512), (96, 128), (33, 47))


def permutations(batch: dict) -> list[Tensor]:
    """Return the permutations that the released function wrote into the meta data."""
    return [meta['PatchMixIndex'] for meta in batch['img_metas']]


def shuffle(reference: Reference, images: Tensor, ratio: float, patch: int, blocks: int) -> dict:
    """Shuffle images (N, C, H, W) as released."""
    batch = dict(img=images.clone(), img_metas=[{} for _ in images])
    reference.generate.generate_unsup_patchmix_data(
        batch, patchmix_ratio=ratio, patch_size=patch, PatchMix_N=blocks
    )
    return batch


def record_shuffle(reference: Reference, vectors: Vectors, draws: Draws, tag: str) -> None:
    """Record the shuffle of an image, and the restored order of a feature map."""
    n, channels, height, width, patch, blocks = SHUFFLES[tag]
    images = draws.whole_numbers(256, n, channels, height, width)
    rows = height // patch
    feature = draws.whole_numbers(128, n, 5, rows, width // patch, low=-128)

    def is_suitable(batch: dict) -> bool:
        found = permutations(batch)
        return any(map(is_identity, found)) and any(map(differs_from_inverse, found))

    batch = draws.first(lambda: shuffle(reference, images, 0.5, patch, blocks), is_suitable, f'shuffle.{tag}')
    restore = reference.build_head(3).get_repatchmix_feat_decode
    vectors.put_all(
        f'shuffle.{tag}',
        image=images.long(),
        shuffled=batch['img'].long(),
        perm=torch.stack(permutations(batch)),
        block_px=patch * blocks,
        block_tokens=blocks,
        feature=feature.long(),
        restored=restore(feature, batch['img_metas']).long(),
    )
    if tag == 'a':  # SegFormer's head has a grid for each stage
        for stage in range(4):
            side = 4 * rows >> stage
            feature = draws.whole_numbers(16, n, 1, side, side)
            restored = restore(feature, batch['img_metas'], scale=4 / 2**stage)
            vectors.put_all(f'shuffle.{tag}.stage{stage}', feature=feature.long(), restored=restored.long())


def record_shuffles(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record PatchShuffle, and a wide image, in which the release loses blocks."""
    for tag in SHUFFLES:
        record_shuffle(reference, vectors, draws, tag)
    images = draws.whole_numbers(256, 2, 1, 16, 48)
    seed_global_generators(draws.seed)
    batch = shuffle(reference, images, 1.0, 4, 2)
    vectors.put_all(
        'as_released.shuffle_wide',
        image=images.long(),
        shuffled=batch['img'].long(),
        perm=torch.stack(permutations(batch)),
        block_px=8,
    )


def record_cutmix(reference: Reference, vectors: Vectors, draws: Draws) -> None:
    """Record boxes for three image sizes, and one mixed batch."""
    for height, width in BOX_SIZES:
        reference.boxes.clear()
        seed_global_generators(draws.seed + 7)
        for _ in range(200):
            reference.draw_box([height, width])
        vectors.put(f'cutmix.draws.{height}x{width}', reference.boxes)

    images = draws.whole_numbers(256, 3, 3, 24, 32)
    label = draws.integers(6, 3, 24, 32)
    label[label == 5] = 255
    logits, mask = draws.grid(3, 5, 2, 2), draws.integers(2, 3, 24, 32)
    reference.boxes.clear()
    seed_global_generators(draws.seed + 8)
    teacher, student = reference.generate.generate_unsup_cutmix_data(
        dict(hard_seg_label=label.clone(), seg_logits=logits.clone(), conf_mask=mask.clone()),
        dict(img=images.clone()),
        ratio=2,
        patchwise=False,
    )
    # the release mixes images and labels only
    assert torch.equal(teacher['seg_logits'], logits) and torch.equal(teacher['conf_mask'], mask)
    vectors.put_all(
        'cutmix',
        image=images.long(),
        label=label,
        boxes=reference.boxes,
        image_mixed=student['img'].long(),
        label_mixed=teacher['hard_seg_label'],
    )
