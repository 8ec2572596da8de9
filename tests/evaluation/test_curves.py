import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mmjax.evaluation.curves import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Line,
    chart,
    smoothed,
    thinned,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0), (-3.2, 8.9), (1e-7, 4e-7), (0, 12345), (5, 5 + 1e-9)]
)
def test_ticks_are_round_even_and_span_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert 3 <= len(found) <= 12
    mantissa = float(f"{steps[0]:.3e}".split("e")[0])
    assert min(abs(mantissa - round_one) for round_one in (1, 2, 5)) < 2e-3


def test_smoothing_is_the_mean_of_the_neighbours():
    y = np.random.default_rng(0).normal(size=30)
    expected = [y[max(0, i - 3) : i + 4].mean() for i in range(30)]
    np.testing.assert_allclose(smoothed(y, 7), expected)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_smoothing_fewer_values_than_the_window(count):
    np.testing.assert_allclose(smoothed(np.ones(count), 9), np.ones(count))


def test_thinning_keeps_order_and_every_spike():
    x, y = np.arange(10_000.0), np.sin(np.arange(10_000.0))
    y[4321], y[8765] = 50, -50
    few_x, few_y = thinned(x, y, 600)
    assert len(few_x) <= 600
    assert (np.diff(few_x) > 0).all()
    assert {50.0, -50.0} <= set(few_y.tolist())
    np.testing.assert_array_equal(y[few_x.astype(int)], few_y)


def points(figure):
    (found,) = ElementTree.fromstring(figure).iter("polyline")
    return np.array([pair.split(",") for pair in found.get("points").split()], float)


def test_a_line_is_drawn_to_scale():
    figure = chart("Loss", [Line("", [0, 50, 100], [0.0, 10.0, 5.0])])
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    expected = [[LEFT, TOP + down], [LEFT + across / 2, TOP], [LEFT + across, TOP + down / 2]]
    np.testing.assert_allclose(points(figure), expected, atol=0.06)


def test_percentages_start_at_zero_and_are_labelled():
    figure = chart("Recall", [Line("set", [0, 10], [0.25, 0.5])], unit="%", zero=True)
    labels = [text.text for text in ElementTree.fromstring(figure).iter("text")]
    assert {"0", "50", "step"} <= set(labels)
    down = HEIGHT - TOP - BOTTOM
    np.testing.assert_allclose(points(figure)[:, 1], [TOP + down / 2, TOP], atol=0.06)
    assert "ends at 50" in figure


def test_one_point_is_a_dot():
    figure = ElementTree.fromstring(chart("Loss", [Line("", [1], [3.0])]))
    assert len(list(figure.iter("circle"))) == 1
    assert not list(figure.iter("polyline"))


def test_values_that_are_no_numbers_are_left_out():
    figure = chart("Loss", [Line("", [0, 1, 2, 3], [1.0, np.nan, np.inf, 2.0])])
    assert len(points(figure)) == 2
    assert not re.search(r"nan|inf", figure)
    assert chart("Loss", [Line("", [0], [np.nan])]) == ""
    assert chart("Loss", []) == ""


def test_labels_are_escaped():
    figure = chart("<i>", [Line("<script>", [0, 1], [0, 1], dots=True)], unit="a&b")
    assert "<script>" not in figure
    ElementTree.fromstring(figure)
