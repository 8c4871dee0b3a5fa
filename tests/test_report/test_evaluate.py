"""Scores of networks: formulas, equality with MMSegmentation's validation, and the cache in the work dir."""

import shutil

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric
from mmseg.structures import SegDataSample

from allspark_mmseg.report import evaluate as module
from allspark_mmseg.report.evaluate import Evaluation, count_pairs, evaluate, label_maps
from allspark_mmseg.report.networks import (
    Network,
    build_val_dataset,
    check_labels,
    check_same_data,
    find_networks,
    read_image,
)
from allspark_mmseg.report.runs import read_run
from allspark_mmseg.trained_model import load_model

from ..helpers.work_dirs import IMAGES, SIZE, config_text


def random_pair(seed):
    rng = np.random.default_rng(seed)
    return rng.choice([0, 1, 2, 255], SIZE).astype(np.uint8), rng.integers(0, 3, SIZE).astype(np.uint8)


def sample_of(truth: np.ndarray, prediction: np.ndarray) -> SegDataSample:
    return SegDataSample(
        gt_sem_seg=PixelData(data=torch.from_numpy(truth)[None]),
        pred_sem_seg=PixelData(data=torch.from_numpy(prediction)[None]),
    )


def test_scores_are_those_of_iou_metric():
    metric = IoUMetric()
    metric.dataset_meta = {'classes': ['a', 'b', 'c', 'never']}
    result = Evaluation.empty(None, 4)
    for seed in range(3):
        truth, prediction = random_pair(seed)
        result.add(truth, prediction)
        metric.process({}, [sample_of(truth, prediction).to_dict()])
    for index, (hits, union, _, true) in enumerate(metric.results):
        np.testing.assert_array_equal(result.areas[index], torch.stack([hits, union, true]))
    expected = metric.compute_metrics(metric.results)
    assert round(result.mean_iou, 2) == pytest.approx(expected['mIoU'])
    assert np.isnan(result.iou[3]) and result.pixel_share.sum() == pytest.approx(1)


def test_the_iou_of_an_image_is_the_mean_over_the_classes_in_its_truth():
    truth = np.array([[0, 0, 0, 0, 1, 1, 255, 255]], np.uint8)
    # class 2 is predicted, but does not occur: it is no class of the mean
    prediction = np.array([[0, 0, 1, 0, 1, 2, 2, 0]], np.uint8)
    result = Evaluation.empty(None, 3)
    for labels in (truth, np.full_like(truth, 255)):
        result.add(labels, prediction)
    first, ignored = result.image_iou
    assert first == pytest.approx(100 * (3 / 4 + 1 / 3) / 2)
    assert np.isnan(ignored)
    np.testing.assert_array_equal(count_pairs(truth, prediction, 3), [[3, 1, 0], [0, 1, 1], [0, 0, 0]])


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match='ground truth contains labels from 0 to 7; expected 0 to 2'):
        check_labels(sample_of(np.array([[0, 7]]), np.array([[0, 0]])), 3)
    with pytest.raises(ValueError, match='equal shapes'):
        check_labels(sample_of(np.zeros((2, 2)), np.zeros((2, 3))), 3)
    with pytest.raises(ValueError, match='there is no mask'):
        check_labels(SegDataSample(pred_sem_seg=PixelData(data=torch.zeros(1, 2, 2))), 3)


def test_networks_of_a_run(seeds, plain, tmp_path):
    found = find_networks(read_run(seeds[0], 'x'))
    assert [(each.checkpoint.name, each.supervised) for each in found] == [
        ('supervised.pth', True),
        ('AllSpark.pth', False),
    ]
    (only,) = find_networks(read_run(plain))
    assert only.checkpoint.name == 'iter_40.pth' and only.supervised
    copy = shutil.copytree(plain, tmp_path / 'x')
    for name in ('last_checkpoint', 'iter_40.pth'):
        (copy / name).unlink()
    assert find_networks(read_run(copy)) == []


@pytest.fixture
def network(plain, tmp_path) -> Network:
    (found,) = find_networks(read_run(shutil.copytree(plain, tmp_path / 'run')))
    return found


def test_the_evaluation_equals_that_of_batches(network, data):
    """Inference on half the resolution: predictions come back at the size of the truth."""
    text = config_text(data, scale=(40, 32))
    network.run.config = Config.fromstring(text, '.py')
    settings = dict(network.run.config.val_dataloader, batch_size=2)
    loader = Runner.build_dataloader({**settings, 'sampler': {'type': 'DefaultSampler', 'shuffle': False}})
    evaluator, model = Evaluator(IoUMetric()), load_model(network.checkpoint, device='cpu')
    evaluator.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        evaluator.process(model.val_step(batch), batch)
    expected = evaluator.evaluate(IMAGES)
    result = evaluate(network, build_val_dataset(network.run.config, ''), 'cpu')
    assert round(result.mean_iou, 2) == pytest.approx(expected['mIoU'])
    assert result.areas.shape == (IMAGES, 3, 3) and result.matrix.sum() == result.areas[:, 2].sum()


def test_an_interrupted_evaluation_goes_on_and_a_second_one_runs_no_network(network, monkeypatch):
    dataset = build_val_dataset(network.run.config, '')
    original, asked = module.predict, []

    def record(network, dataset, indices, device):
        asked.append(list(indices))
        for number, pair in enumerate(original(network, dataset, indices, device)):
            if len(asked) == 1 and number == 2:
                raise KeyboardInterrupt
            yield pair

    monkeypatch.setattr(module, 'predict', record)
    monkeypatch.setattr(module, '_KEPT_PREDICTIONS', 0)
    with pytest.raises(KeyboardInterrupt):
        evaluate(network, dataset, 'cpu')
    result = evaluate(network, dataset, 'cpu')
    again = evaluate(network, dataset, 'cpu')
    assert asked == [[0, 1, 2, 3], [2, 3]]
    np.testing.assert_array_equal(again.areas, result.areas)
    np.testing.assert_array_equal(again.matrix, result.matrix)
    maps = label_maps(network, dataset, [3, 0, 3], 'cpu')
    assert {key: (each.shape, each.dtype) for key, each in maps.items()} == dict.fromkeys(
        (0, 3), (SIZE, np.uint8)
    )
    np.testing.assert_array_equal(label_maps(network, dataset, [0], 'cpu')[0], maps[0])
    assert asked[2:] == [[3, 0]]
    # another checkpoint: nothing of the old one is used
    network.checkpoint.touch()
    monkeypatch.setattr(module, '_KEPT_PREDICTIONS', 4)
    evaluate(network, dataset, 'cpu')
    np.testing.assert_array_equal(label_maps(network, dataset, [0], 'cpu')[0], maps[0])
    assert asked[3:] == [[0, 1, 2, 3]]


def test_scores_of_other_masks_are_not_used_again(network, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / 'data')
    network.run.config = Config.fromstring(config_text(copy), '.py')
    first = evaluate(network, build_val_dataset(network.run.config, ''), 'cpu')
    (copy / 'masks/0.png').write_bytes((copy / 'masks/1.png').read_bytes())
    second = evaluate(network, build_val_dataset(network.run.config, ''), 'cpu')
    assert not np.array_equal(first.areas[0], second.areas[0])
    np.testing.assert_array_equal(first.areas[1:], second.areas[1:])
    for name in ('images', 'masks'):
        (copy / name / '3.png').unlink()
    third = evaluate(network, build_val_dataset(network.run.config, ''), 'cpu')
    np.testing.assert_array_equal(third.areas, second.areas[:3])


def test_other_data_and_missing_data_are_refused(data, tmp_path):
    dataset = build_val_dataset(Config.fromstring(config_text(data), '.py'), 'A')
    other = Config.fromstring(config_text(data).replace("'road'", "'street'"), '.py')
    with pytest.raises(ValueError, match='A and B validate on different images or classes'):
        check_same_data(dataset, build_val_dataset(other, 'B'), 'A', 'B')
    with pytest.raises(FileNotFoundError, match=r'nowhere of the validation images does not exist here'):
        build_val_dataset(Config.fromstring(config_text(tmp_path / 'nowhere'), '.py'), 'A')
    with pytest.raises(KeyError, match='A has no val_dataloader'):
        build_val_dataset(Config({'default_scope': 'mmseg'}), 'A')


def test_images_that_opencv_does_not_read_are_shown_as_loaded():
    class Dataset:
        def get_data_info(self, index):
            return {'img_path': '/nowhere/x.npy'}

        def __getitem__(self, index):
            return {'inputs': torch.stack([torch.full((2, 3), value) for value in (0.0, 5.0, 10.0, 99.0)])}

    image = read_image(Dataset(), 0)
    assert image.shape == (2, 3, 3) and image[0, 0].tolist() == [255, 128, 0]
