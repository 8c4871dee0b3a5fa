"""Curves as the page's script reads them."""

import pytest

from allspark_mmseg.report.charts import comparison_charts, mean_points, score_chart, to_points
from allspark_mmseg.report.groups import group_runs
from allspark_mmseg.report.run_charts import run_charts
from allspark_mmseg.report.runs import read_run

from ..helpers.work_dirs import CLASSES


def test_points_of_several_runs_have_mean_lowest_and_highest_where_all_have_a_value():
    curves = [{1: 2.0, 2: 4.0, 3: 9.0}, {1: 4.0, 2: 5.0}]
    assert mean_points(curves) == [[1, 3.0, 2.0, 4.0], [2, 4.5, 4.0, 5.0]]
    assert mean_points(curves[:1]) == [[1, 2.0], [2, 4.0], [3, 9.0]]
    assert mean_points([]) == []


def test_a_long_curve_keeps_its_ends():
    points = to_points({step: float(step) for step in range(1001)})
    assert len(points) <= 402 and points[0] == [0, 0.0] and points[-1] == [1000, 1000.0]


def test_scores_of_two_seeds_and_of_a_supervised_run(seeds, plain):
    groups = group_runs([read_run(path) for path in (*seeds, plain)])
    chart = score_chart(groups)
    shown = {series.name: series.points for series in chart.series}
    assert shown == {
        'AllSpark: supervised phase': [[20, 40.5, 40.0, 41.0]],
        'AllSpark teacher': [[40, 45.5, 45.0, 46.0]],
        'Supervised': [[20, 38.0], [40, 41.0]],
    }
    # the color is that of the group; the supervised phase ends at one iteration in both runs
    assert [series.color for series in chart.series] == [0, 0, 1]
    assert chart.marks == [[20, '+ unlabeled images']]
    assert 'Supervised 41%' not in chart.alt and 'Supervised 41' in chart.alt


def test_other_values_of_several_runs_are_compared(seeds, plain):
    charts = comparison_charts(group_runs([read_run(path) for path in (*seeds, plain)]))
    titles = [chart.title for chart in charts]
    assert titles == ['mIoU during training', 'loss', 'pseudo.confident', 'sup.loss_ce', 'unsup.loss_ce']
    loss = {series.name: series.points for series in charts[1].series}
    assert loss['Supervised'][0] == pytest.approx([10, 0.3]) and len(loss['AllSpark'][0]) == 4
    assert [chart.title for chart in comparison_charts(group_runs([read_run(plain)]))] == [
        'mIoU during training'
    ]


def test_every_value_that_a_run_logged_is_in_one_chart(seeds):
    run = read_run(seeds[0])
    run.curves |= {
        'memory.filled/road': {1: 0.5, 2: 0.6},
        'css.hard': {1: 1.0, 2: 2.0},
        'lr': {1: 1.0, 2: 2.0},
    }
    charts = {chart.title: chart for chart in run_charts(run)}
    assert [series.name for series in charts['Losses'].series] == ['loss', 'sup.loss_ce', 'unsup.loss_ce']
    for title in ('Share of each class in the pseudo-labels', 'Coverage of the pseudo-labels of each class'):
        assert [series.name for series in charts[title].series] == CLASSES and charts[title].percent
    assert {title for title, chart in charts.items() if chart.more} == {'memory.filled', 'css.hard'}
    assert [series.name for series in charts['Pseudo-labels'].series] == [
        'share of pixels, training crops',
        'mean precision',
    ]
    points = sum(len(series.points) for chart in charts.values() for series in chart.series)
    known = [curve for name, curve in run.curves.items() if 'mIoU' not in name and name != 'lr']
    assert points == sum(map(len, known))
