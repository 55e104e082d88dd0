import numpy as np
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from test_tables import BASELINE, ONLINE, SPACED, complexities, study

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.claims.model import Claim, Setting
from spaced_kd.analysis.claims.verdicts import Verdict
from spaced_kd.analysis.figures import fig07, fig_overview
from spaced_kd.analysis.render import render
from spaced_kd.analysis.statistics import paired_interval
from spaced_kd.analysis.tables import headline
from spaced_kd.config import registry
from spaced_kd.config.labels import TEXTBOOK
from spaced_kd.utils.errors import UserError

INTERVALS = [ONLINE, ("online_kd", "0.5", {0: 95.0, 1: 97.0}), SPACED, ("online_kd", "2", {0: 91.0})]
OFFLINE = ("online_kd", "max", {0: 90.0, 1: 90.5, 2: 91.0})


def draw(name, *frames):
    return registry.find("figures", name)(tidy_rows.join(*frames))


def bars(axes):
    """Points with error bars: x -> (mean, half of the bar)."""
    points = {}
    for container in axes.containers:
        line, _, (bar, *_) = container.lines[0], container.lines[1], container.lines[2] or [None]
        half = np.diff(bar.get_segments()[0][:, 1]).item() / 2 if bar else None
        points[line.get_xdata()[0]] = (line.get_ydata()[0], half)
    return points


def line(axes, label):
    return next(line for line in axes.get_lines() if line.get_label() == label)


def test_fig02_shows_mean_and_deviation_of_each_interval():
    (axes,) = draw("fig02", study(BASELINE, *INTERVALS, OFFLINE)).axes
    points = bars(axes)
    assert points[0.5] == pytest.approx((96.0, np.sqrt(2)))
    assert points[1.5] == pytest.approx((93.8333, 0.7638), abs=1e-3)
    assert points[2][0] == 91.0
    assert points[2][1] is None  # one seed has no deviation
    assert line(axes, "w/o KD").get_ydata()[0] == 91.0
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "0.5", "1.5", "2", "offline"]
    assert points[axes.get_xticks()[-1]] == pytest.approx((90.5, 0.5))
    assert axes.get_xticks()[-1] > 2.2


def test_fig02_fits_the_finite_intervals_only():
    parabola = [("online_kd", f"{s:g}", {0: 90 + 3 * s - s * s}) for s in (0, 0.5, 1, 2)]
    (axes,) = draw("fig02", study(*parabola, OFFLINE)).axes
    x, y = line(axes, "quadratic fit").get_data()
    assert (x.min(), x.max()) == pytest.approx((0, 2))
    np.testing.assert_allclose(y, 90 + 3 * x - x * x)
    two_points = draw("fig02", study(*parabola[:2], OFFLINE)).axes[0]
    assert "quadratic fit" not in {line.get_label() for line in two_points.get_lines()}


def test_fig02_has_a_panel_for_each_network_and_the_papers_points(pytestconfig):
    paper = reference.read_reference(pytestconfig.rootpath / "src/spaced_kd/config/preset_files/reference.csv")
    known = study(*INTERVALS).assign(dataset="cifar100", network="resnet18", teacher="resnet18")
    first, second = draw("fig02", study(*INTERVALS), known, paper).axes
    assert second.get_title() == "CIFAR-100\nResNet-18"
    theirs = {tuple(line.get_xydata()[0]) for line in second.get_lines() if line.get_label() == "paper"}
    assert (1.5, 72.43) in theirs
    assert len(theirs) == 6
    assert "paper" not in {line.get_label() for line in first.get_lines()}


def test_fig02_says_which_seeds_are_missing():
    gap = ("online_kd", "0.5", {0: 95.0, 1: None, 2: 97.0})
    (axes,) = draw("fig02", study(ONLINE, gap, SPACED)).axes
    assert axes.get_title() == "Digits\nmini ResNet\n(Spaced KD, s = 0.5: 2 of 3 seeds)"
    assert bars(axes)[0.5][0] == 96.0


def noise(*, missing=None):
    frames = []
    for sigma, draws in ((0.0, 1), (0.01, 2), (0.02, 2)):
        for number in range(draws):
            for metric in ("loss", "accuracy"):
                # seeds 0 and 1 have means 1 and 3 over their draws, times sigma
                online = {0: sigma * (0.5 + number), 1: sigma * (2.5 + number)}
                setting = {"evaluation": "weight_noise", "metric": metric, "sigma": sigma, "draw": number}
                frames.append(study(("online_kd", "0", online), ("online_kd", "1.5", {0: 0.1, 1: 0.1}), **setting))
    if missing:
        frames.append(study(missing, evaluation="weight_noise"))
    return tidy_rows.join(*frames)


def test_fig04_averages_draws_before_seeds():
    loss, accuracy = draw("fig04", noise()).axes
    np.testing.assert_allclose(line(loss, "online KD").get_xydata(), [[0, 0], [0.01, 0.02], [0.02, 0.04]])
    band = next(band for band in loss.collections if band.get_facecolor()[0][2] > 0.6)  # the blue one
    top = max(y for x, y in band.get_paths()[0].vertices if x == 0.02)
    assert top == pytest.approx(0.04 + 0.02 * np.std([1, 3], ddof=1))
    assert loss.get_ylabel() == "training loss (nats)"
    assert accuracy.get_ylabel() == "training accuracy (%)"
    assert {line.get_linestyle() for line in loss.get_lines()} == {"-", "--"}


def test_fig04_says_which_seeds_are_missing():
    assert (
        "(online KD: 2 of 3 seeds)" in draw("fig04", noise(missing=("online_kd", "0", {2: None}))).axes[0].get_title()
    )


def windows():
    """Spaced KD from an epoch on, for 10 epochs or to the end."""
    runs = [
        (f"online_kd[spaced_from={start}.0,spaced_until={start + 10}.0]", "1.5", {0: 90 + start, 1: 92 + start})
        for start in (10, 20)
    ]
    runs.append(("online_kd[spaced_until=10.0]", "1.5", {0: 80.0, 1: 82.0}))
    runs.append(("online_kd[spaced_from=40.0]", "1.5", {0: 70.0, 1: None}))
    return study(ONLINE, SPACED, ("online_kd[alpha=0.5]", "1.5", {0: 1.0}), *runs)


def test_fig03_has_a_panel_for_each_length_and_the_levels_of_both_ends():
    for_ten, to_the_end = draw("fig03", windows()).axes
    assert for_ten.get_title() == "Digits\nmini ResNet\nfor 10 epochs"
    root = pytest.approx(np.sqrt(2))
    assert bars(for_ten) == {0: (81.0, root), 10: (101.0, root), 20: (111.0, root)}
    assert bars(to_the_end)[40] == (70.0, None)
    assert bars(to_the_end)[0][0] == pytest.approx(93.8333, abs=1e-3)  # a window of everything is Spaced KD
    assert to_the_end.get_title().endswith("s = 1.5, spaced from 40: 1 of 2 seeds)")
    for axes in (for_ten, to_the_end):
        assert line(axes, "online KD").get_ydata()[0] == pytest.approx(92.8333, abs=1e-3)


def curve():
    frames = []
    for epoch in (5, 10, 20):
        runs = [(method, interval, {0: epoch, 1: epoch + 2.0}) for method, interval, _ in (BASELINE, ONLINE, SPACED)]
        frames.append(study(*runs, ("self_kd", "0", {0: 1.0}), selection="curve", epoch=epoch))
    return tidy_rows.join(*frames)


def test_fig05_is_the_mean_over_seeds_at_each_epoch():
    (axes,) = draw("fig05", curve(), study(ONLINE, SPACED)).axes
    np.testing.assert_allclose(line(axes, "Spaced KD, s = 1.5").get_xydata(), [[5, 6], [10, 11], [20, 21]])
    assert {each.get_label() for each in axes.get_lines()} == {"w/o KD", "online KD", "Spaced KD, s = 1.5"}
    assert max(y for x, y in axes.collections[0].get_paths()[0].vertices if x == 20) == pytest.approx(21 + np.sqrt(2))


def losses(*arms):
    """Rows of training losses: 3 / epoch for seed 0, and twice that for seed 1."""
    keep = {"evaluation": "training", "metric": "loss", "selection": "curve"}
    return tidy_rows.join(
        *(study(*((*arm[:2], {0: 3 / e, 1: 6 / e}) for arm in arms), **keep, epoch=e) for e in (5, 10, 20))
    )


def test_fig_curves_has_accuracy_above_loss_for_every_arm():
    accuracy, loss = draw("fig_curves", curve(), losses(BASELINE, SPACED)).axes
    arms = {"w/o KD", "online KD", "Spaced KD, s = 1.5", "self KD"}
    assert {each.get_label() for each in accuracy.get_lines()} == arms
    np.testing.assert_allclose(line(accuracy, "online KD").get_xydata(), [[5, 6], [10, 11], [20, 21]])
    np.testing.assert_allclose(line(loss, "w/o KD").get_xydata(), [[5, 0.9], [10, 0.45], [20, 0.225]])
    assert {each.get_label() for each in loss.get_lines()} == {"w/o KD", "Spaced KD, s = 1.5"}
    low, high = (f(y for x, y in loss.collections[1].get_paths()[0].vertices if x == 10) for f in (min, max))
    assert (low, high) == pytest.approx((0.45 - 0.15 * np.sqrt(2), 0.45 + 0.15 * np.sqrt(2)))
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("test accuracy (%)", "training loss (nats)")


def test_fig_curves_has_four_settings_side_by_side_and_no_empty_panels():
    others = [curve().assign(dataset=f"set{number}") for number in range(5)]
    drawing = draw("fig_curves", *others, losses(SPACED).assign(dataset="set4"))
    places = [axes.get_subplotspec() for axes in drawing.axes]
    assert [(place.rowspan.start, place.colspan.start) for place in places if place.rowspan.start > 1] == [
        (2, 0),
        (3, 0),
    ]
    assert len(places) == 10
    # rows from before losses were collected have accuracies alone
    assert len(draw("fig_curves", *others).axes) == 5


def test_fig06_has_a_panel_for_each_axis_with_several_values():
    frames = [
        study(ONLINE, SPACED, recipe=recipe) for recipe in ("", "lr=0.1", "batch_size=64", "batch_size=64 epochs=5")
    ]
    rate, size = draw("fig06", *frames).axes
    assert (rate.get_xlabel(), size.get_xlabel()) == ("learning rate (per step)", "batch size (images)")
    assert list(line(rate, "online KD").get_xdata()) == [0.01, 0.1]  # 0.01 is the default, which no row spells out
    assert list(line(size, "online KD").get_xdata()) == [64, 128]
    with pytest.raises(UserError, match="fig06 needs runs with several values of lr or of batch_size"):
        draw("fig06", study(ONLINE, SPACED))


def test_fig_hessian_trace_shows_seeds_and_means():
    rows = study(BASELINE, ONLINE, SPACED).assign(evaluation="hessian_trace", metric="trace")
    (axes,) = draw("fig_hessian_trace", rows).axes
    assert bars(axes)[1] == pytest.approx((92.8333, np.std([92, 92.5, 94], ddof=1)), abs=1e-3)
    paired = [each.get_ydata().tolist() for each in axes.get_lines() if len(each.get_ydata()) == 3]
    assert [91.0, 92.5, 94.0] in paired
    assert axes.get_yscale() == "log"


def test_fig_supervision_complexity_has_a_panel_for_each_student():
    drawing = draw("fig_supervision_complexity", complexities(lacking={("0", 2)}))
    online, spaced = drawing.axes
    assert online.get_title() == "online KD\nDigits\nmini ResNet\n(online KD: 2 of 3 seeds)"
    assert online.get_yscale() == "log"
    np.testing.assert_allclose(line(spaced, "labels").get_xydata(), [[0, 3], [2, 5]])
    np.testing.assert_allclose(line(online, "spaced teacher, as it comes").get_xydata(), [[0, 3.5], [2, 5.5]])
    assert len(line(spaced, "offline teacher").get_xydata()) == 0  # of which there are no rows


def images(side=8):
    names = ["clean/0", *(f"{name}/{severity}" for name in fig07.CORRUPTIONS for severity in fig07.SEVERITIES)]
    return {name: np.full((2, side, side, 3), number, np.uint8) for number, name in enumerate(names)}


def test_fig07_shows_each_corruption_in_its_place():
    drawing = fig07.figure(study(ONLINE), images())
    assert len(drawing.axes) == 19
    column = [axes for axes in drawing.axes if axes.get_subplotspec().colspan.start == 3]
    assert column[0].get_title() == "snow"
    expected = [images()[f"snow/{severity}"][0, 0, 0, 0] for severity in (1, 3, 5)]
    assert [axes.images[0].get_array()[0, 0, 0] for axes in column] == expected


def test_fig07_names_missing_images(tmp_path):
    some = images()
    del some["snow/3"]
    with pytest.raises(UserError, match="no images snow/3:"):
        fig07.figure(study(ONLINE), some)
    with pytest.raises(UserError, match="fig07 shows images, but none are given"):
        render("fig07", study(ONLINE), tmp_path)


def test_fig_overview_sets_our_intervals_beside_the_papers_range():
    paper = reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")
    wide = study(BASELINE, ("online_kd", "0", {0: 55.0, 1: 90.0, 2: 92.0}))
    wide = wide.assign(network="vit_mini", teacher="vit_mini")
    first, _, second = draw("fig_overview", study(BASELINE, ONLINE, SPACED), wide, paper).axes
    assert first.get_title(loc="left") == "Online KD beats training without KD"
    assert [label.get_text() for label in first.get_yticklabels()] == [
        f"Digits; mini ResNet\n80 epochs; reading {TEXTBOOK}; n = 3",
        f"Digits; mini ViT\n80 epochs; reading {TEXTBOOK}; n = 3",
    ]
    low, high = paired_interval(np.array([1.0, 1.5, 0.5]), 0.05 / 3)  # three main claims at this scale
    lines = [line for line in second.get_lines() if list(line.get_ydata()) == [0, 0]]
    assert {line.get_fillstyle() for line in second.get_lines() if line.get_marker() == "o"} == {"none"}  # undecided
    (interval,) = (line.get_xdata() for line in lines)
    assert interval == pytest.approx((low, high))
    with pytest.raises(UserError, match=r"fig_overview needs runs of online_kd with interval 0 and 1\.5, of two seeds"):
        draw("fig_overview", study(BASELINE), paper)
    (bar,) = second.patches
    assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((1.19, 2.65))
    # -35, -1 and 0: an interval beyond both ends, and a mean within
    assert [(line.get_marker(), line.get_xdata()[0]) for line in first.get_lines() if line.get_marker() in "<>"] == [
        ("<", -15),
        (">", 15),
    ]


def test_fig_overview_fits_on_a_screen_and_says_what_it_leaves_out(monkeypatch):
    claims = [f"claim {number}" for number in range(4)]
    names = [*claims, *headline.CLAIMS]
    settings = [Setting("digits", f"net{number}", f"net{number}") for number in range(5)]
    measured = {"mean": 1.0, "seeds": 3, "expected": 3}
    judged = [
        Verdict(claim, "supported", setting=setting, steps=(steps,), **measured)
        for claim in (Claim(name, f"s of {name}", "", "greater", 1.0, "pp", main=True) for name in names)
        for steps, setting in enumerate(settings)
    ]
    monkeypatch.setattr(fig_overview, "judge", lambda sheet, rows: judged)
    monkeypatch.setattr(fig_overview, "load", lambda path, rows: None)
    drawing = fig_overview.figure(study(ONLINE))
    titles = [axes.get_title(loc="left") for axes in drawing.axes]
    assert titles == [f"S of {name} (3 of 5 settings)" for name in headline.CLAIMS]
    longest = [label.get_text().partition("\n")[0] for label in drawing.axes[0].get_yticklabels()]
    assert longest == ["Digits; net4", "Digits; net3", "Digits; net2"]
    assert drawing.get_figheight() < 10
    assert drawing.axes[0].get_xlim() == pytest.approx((-1.1, 1.1))  # as far as the data go


@pytest.mark.parametrize(
    "name",
    [
        *("fig02", "fig03", "fig04", "fig05", "fig06"),
        *("fig_hessian_trace", "fig_supervision_complexity", "fig_curves"),
    ],
)
def test_study_without_the_runs_is_reported_which(name):
    with pytest.raises(UserError, match=rf"^{name} needs runs of online_kd with interval (0 and )?1\.5"):
        draw(name, study(BASELINE))


def test_a_figure_without_its_runs_names_the_experiment(tmp_path):
    with pytest.raises(UserError, match=r"`snakemake fig05 --configfile config/experiments/tab07\.yaml` makes it"):
        render("fig05", study(BASELINE), tmp_path)


def test_files_have_no_dates_and_the_same_bytes(tmp_path):
    first, second = (render("fig02", study(*INTERVALS), tmp_path / str(i)) for i in range(2))
    assert [path.relative_to(tmp_path).as_posix() for path in first] == ["0/figures/fig02.pdf", "0/figures/fig02.png"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert b"CreationDate" not in first[0].read_bytes()
    assert first[1].read_bytes().startswith(b"\x89PNG")


def test_images_reach_the_figure(tmp_path, monkeypatch):
    given = []

    def small(rows, images):
        given.append(images)
        return Figure(figsize=(1, 1))

    monkeypatch.setattr(registry, "find", lambda kind, name: small)
    assert all(path.stat().st_size for path in render("fig07", study(ONLINE), tmp_path, images()))
    assert given[0].keys() == images().keys()


def test_legend_and_titles_stay_inside_the_figure():
    drawing = draw(
        "fig04", noise(), study(("self_kd", "4", {0: 1.0}), evaluation="weight_noise", metric="loss", sigma=0)
    )
    drawing.draw_without_rendering()
    (legend,) = drawing.legends
    parts = [legend, *(axes.title for axes in drawing.axes), drawing._supxlabel]
    for part in parts:
        box = part.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= drawing.bbox.x1
        assert box.y1 <= drawing.bbox.y1
    assert not legend.get_window_extent().overlaps(drawing.axes[0].title.get_window_extent())
