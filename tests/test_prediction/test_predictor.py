"""Predictions against MMSegmentation's own evaluation, and windows against its sliding windows."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmseg.models import SegTTAModel

from allspark_mmseg.prediction import ImageLoader, Predictor
from allspark_mmseg.prediction.predictor import _window_side

from ..helpers.checkpoints import LOAD, TEST_PIPELINE, model_config, write_image
from ..helpers.tiny_models import build_model, tiny_head, tiny_segmentor

EXTENDED = 'allspark_mmseg.ExtendedEncoderDecoder'
SIZE = (110, 150)


def build(config):
    """The model of a config with random weights that give varied predictions."""
    torch.manual_seed(0)
    model = build_model(config['model']).eval()
    for values in model.parameters():
        if values.ndim > 1:
            torch.nn.init.normal_(values, std=0.2)
    model.cfg = Config(config)
    return model


def predictor_and_image(tmp_path, tta=False, pipeline=None, options=None, **segmentor):
    model = build(model_config(tiny_segmentor(**segmentor), pipeline))
    image = ImageLoader(model.cfg, tta)(write_image(tmp_path / 'a.png', SIZE))
    return Predictor(model, **(options or {})), image


def evaluated(model, image):
    """Labels (H, W) and logits (K, H, W) as the test loop predicts them."""
    item = dict(inputs=image.inputs[0], data_samples=image.data_samples[0])
    with torch.no_grad():
        (sample,) = model.test_step(pseudo_collate([item]))
    return sample.pred_sem_seg.data[0].numpy(), sample.seg_logits.data


def in_strips(predictor, image):
    parts = list(predictor.predict_strips(image))
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in ('labels', 'confidence'))


def close(first, second):
    """Whether labels are equal up to ties, and confidence up to rounding."""
    same = (first[0] == second[0]).mean() > 0.999
    return same and np.abs(first[1].astype(int) - second[1].astype(int)).max() <= 1


RESIZED = [LOAD, dict(type='Resize', scale=(99, 70), keep_ratio=False), *TEST_PIPELINE[1:]]


@pytest.mark.parametrize('pipeline', [None, RESIZED])
def test_small_images_are_predicted_as_the_test_does(tmp_path, pipeline):
    predictor, image = predictor_and_image(tmp_path, pipeline=pipeline)
    (prediction,) = predictor.predict([image])
    assert prediction.labels.shape == prediction.confidence.shape == SIZE
    assert len(np.unique(prediction.labels)) > 1
    labels, logits = evaluated(predictor.model, image)
    assert np.array_equal(prediction.labels, labels)
    confidence = (255 * logits.softmax(0).max(0).values).round().numpy()
    assert np.array_equal(prediction.confidence, confidence)


def test_an_image_in_one_window_equals_the_whole_image(tmp_path):
    predictor, image = predictor_and_image(tmp_path, pipeline=RESIZED)
    (whole,) = predictor.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


@pytest.mark.parametrize('mode', ['slide', 'slide_probs_shifted', 'slide_probs_clipped'])
def test_strips_equal_the_sliding_windows_of_the_network(tmp_path, mode):
    test_cfg = dict(mode=mode, crop_size=(80, 64), stride=(75, 60))
    predictor, image = predictor_and_image(
        tmp_path, type=EXTENDED, test_cfg=test_cfg, options=dict(batch_size=2)
    )
    (whole,) = predictor.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


def test_own_windows_average_probabilities(tmp_path):
    test_cfg = dict(mode='slide_probs_shifted', crop_size=(64, 64), stride=(40, 40))
    expected, image = predictor_and_image(tmp_path, type=EXTENDED, test_cfg=test_cfg)
    predictor, _ = predictor_and_image(tmp_path, options=dict(window=64, stride=40))
    (whole,) = expected.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


def test_padding_of_the_data_preprocessor_is_removed(tmp_path):
    padded = dict(tiny_segmentor()['data_preprocessor'], test_cfg=dict(size_divisor=32))
    predictor, image = predictor_and_image(tmp_path, data_preprocessor=padded)
    (whole,) = predictor.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


def test_a_sigmoid_is_confident_of_both_classes(tmp_path):
    head = tiny_head() | dict(num_classes=2, out_channels=1, threshold=0.0)
    head['loss_decode'] = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
    predictor, image = predictor_and_image(tmp_path, decode_head=head)
    (positive,) = predictor.predict([image])
    assert positive.labels.all()
    threshold = float(np.median(positive.confidence)) / 255
    predictor.model.decode_head.threshold = threshold
    (whole,) = predictor.predict([image])
    assert np.array_equal(whole.labels, evaluated(predictor.model, image)[0])
    is_negative = whole.labels == 0
    assert 0 < is_negative.sum() < is_negative.size
    assert np.abs(whole.confidence[is_negative] - (255.0 - positive.confidence[is_negative])).max() <= 1
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


def test_a_batch_equals_single_images(tmp_path):
    model = build(model_config())
    loader = ImageLoader(model.cfg)
    images = [loader(write_image(tmp_path / f'{seed}.png', SIZE, seed)) for seed in range(3)]
    together = Predictor(model, batch_size=3).predict(images)
    for image, prediction in zip(images, together, strict=True):
        (alone,) = Predictor(model).predict([image])
        assert close((prediction.labels, prediction.confidence), (alone.labels, alone.confidence))


def test_augmentation_equals_that_of_mmsegmentation(tmp_path):
    predictor, image = predictor_and_image(tmp_path, tta=True)
    assert len(image.inputs) == 6
    batch = dict(
        inputs=[[view] for view in image.inputs], data_samples=[[sample] for sample in image.data_samples]
    )
    with torch.no_grad():
        (expected,) = SegTTAModel(predictor.model).test_step(batch)
    (prediction,) = predictor.predict([image])
    assert np.array_equal(prediction.labels, expected.pred_sem_seg.data[0].numpy())
    plain, single = predictor_and_image(tmp_path)
    assert not np.array_equal(prediction.labels, plain.predict([single])[0].labels)


@pytest.mark.parametrize('direction', ['horizontal', 'vertical'])
def test_augmentation_of_a_large_image(tmp_path, direction):
    flips = [dict(type='RandomFlip', prob=prob, direction=direction) for prob in (0.0, 1.0)]
    model = build(model_config())
    model.cfg.tta_pipeline = [
        LOAD,
        dict(type='TestTimeAug', transforms=[flips, [dict(type='PackSegInputs')]]),
    ]
    image = ImageLoader(model.cfg, tta=True)(write_image(tmp_path / 'a.png', SIZE))
    predictor = Predictor(model)
    (whole,) = predictor.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))


def test_what_is_large():
    model = build(model_config())
    assert not Predictor(model).is_large(2048 * 2048) and Predictor(model).is_large(2048 * 2049)
    assert Predictor(model, window=64).is_large(65 * 65)
    assert not Predictor(model, window=0).is_large(10**9)


def test_windows_suit_the_crops_of_the_training():
    assert [_window_side(crop) for crop in (None, (129, 129), (518, 518), (801, 801))] == [
        1024,
        1025,
        1036,
        801,
    ]
    assert _window_side((2000, 1000)) == 2000


def test_options_out_of_range():
    model = build(model_config())
    for options, name in ((dict(batch_size=0), '--batch-size'), (dict(window=64, stride=65), '--stride')):
        with pytest.raises(ValueError, match=f'predict: {name} is'):
            Predictor(model, **options)
    with pytest.raises(ValueError, match='--window is -1'):
        Predictor(model, window=-1, stride=1)


def semi(teacher=None):
    config = dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor(), teacher=teacher)
    return build_model(config)


def test_large_images_of_a_semi_supervised_model(tmp_path):
    config = model_config(dict(type='allspark_mmseg.FixMatch', segmentor=tiny_segmentor()))
    model = build(config)
    image = ImageLoader(model.cfg)(write_image(tmp_path / 'a.png', SIZE))
    predictor = Predictor(model)
    (whole,) = predictor.predict([image])
    assert close(in_strips(predictor, image), (whole.labels, whole.confidence))
    assert cv2.imread(str(tmp_path / 'a.png')).shape[:2] == SIZE


def test_windows_suit_the_crop_of_the_method():
    """The data preprocessor of a semi-supervised config can belong to the method or to the student."""
    for owner in ('method', 'student'):
        segmentor = tiny_segmentor()
        preprocessor = segmentor.pop('data_preprocessor') | dict(size=(97, 97))
        model = dict(type='allspark_mmseg.FixMatch', segmentor=segmentor)
        (model if owner == 'method' else segmentor)['data_preprocessor'] = preprocessor
        if owner == 'method':
            model['data_preprocessor']['type'] = 'allspark_mmseg.MultiViewSegDataPreProcessor'
        assert Predictor(build_model(model).eval()).window == (_window_side((97, 97)),) * 2
