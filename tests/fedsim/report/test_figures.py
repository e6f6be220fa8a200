import matplotlib as mpl
from matplotlib.figure import Figure

from fedsim.report.figures import STYLE, svg


def test_a_dollar_in_a_name_is_a_dollar():
    with mpl.rc_context(STYLE):
        figure = Figure()
        axes = figure.subplots()
        axes.set_title(r"my$attack$, 5 $, \frac{")
        axes.plot([0, 1], label="$x_")
        axes.legend()
        text = svg(figure)
    assert r"my$attack$, 5 $, \frac{" in text
    assert "$x_" in text
