"""The report page: self-contained, complete, repeatable."""

import base64
import dataclasses
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from adanat import plots
from adanat.pictures import MAX_SIDE, png_uri, strip, token_map
from adanat.report import (
    Column,
    DecodingTrace,
    EvaluationProtocol,
    Highlight,
    ParameterCurves,
    ReportData,
    Row,
    SampleSet,
    Series,
    StepCurve,
    Table,
    TrainingFigure,
    Value,
    render_report,
    write_report,
)
from PIL import Image


def make_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def make_trace(**changes):
    steps = 4
    order = np.random.default_rng(1).permutation(9).reshape(3, 3)
    fields = {
        "name": "Learned policy, zero",
        "revealed": np.stack([order < kept for kept in (1, 3, 6, 9)]),
        "images": make_images(steps, 3, 8, 8),
        "parameters": np.full((steps, 4), 0.5),
    }
    return DecodingTrace(**(fields | changes))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(2)
    columns = (
        Column(key="lite2_fd", label="lite2 distance", better="lower", digits=1),
        Column(key="recall", label="Recall", better="higher", digits=3),
        Column(key="passes", label="Passes", better="lower", digits=1),
    )
    rows = (
        Row(
            name="Default",
            values={"lite2_fd": Value(mean=612.34, half_width=4.1), "recall": 0.4, "passes": 7.0},
        ),
        Row(
            name="Learned <policy>",
            values={"lite2_fd": Value(mean=498.2, half_width=3.9), "recall": 0.39, "passes": 7.0},
        ),
        Row(name="Floor", kind="bound", values={"lite2_fd": 300.0}),
    )
    protocol = EvaluationProtocol(
        num_samples=10_000,
        seeds=(7, 8),
        label_plan="balanced labels",
        features="Lite2 at 64 px",
        reference="10,000 test images",
    )
    steps = np.arange(100)
    return ReportData(
        title="A run",
        subtitle="4 steps",
        tables=(Table(title="Results", columns=columns, rows=rows, protocol=protocol),),
        highlights=(Highlight(label="Gain", value="53.7 ± 4.2"),),
        class_names=("zero", "one"),
        samples=(
            SampleSet(name="Real", images=make_images(2, 3, 3, 8, 8)),
            SampleSet(name="Default", images=make_images(2, 3, 3, 8, 8)),
        ),
        traces=(make_trace(), make_trace(name="Bare", parameters=None)),
        parameter_curves=(
            ParameterCurves(name="Default", values=np.ones((4, 4))),
            ParameterCurves(name="Learned <policy>", values=rng.random((20, 4, 4))),
        ),
        step_curves=(
            StepCurve(name="Default", distances={4: 600.0, 8: Value(mean=540.0, half_width=3.0)}),
            StepCurve(name="Learned <policy>", distances={4: 498.2}),
        ),
        training=(
            TrainingFigure(
                title="Reward",
                series=(
                    Series(label="mean", steps=steps, values=rng.random(100)),
                    Series(label="few", steps=steps[:3], values=np.array([1.0, np.nan, 2.0])),
                ),
            ),
            TrainingFigure(
                title="Loss",
                series=(Series(label="loss", steps=steps, values=rng.random(100) + 0.1),),
                log_y=True,
            ),
        ),
        notes=("Digits are too few to rank policies.",),
        seconds={"data": 1.24, "train-policy": 3725.0},
        command="adanat quickstart",
        config={"policy": {"learning_rate": 1e-4}},
        versions={"torch": "2.15"},
    )


@pytest.fixture(scope="module")
def html(data):
    return render_report(data)


class Page(HTMLParser):
    """Collects what a page refers to, and its text."""

    def __init__(self, html):
        super().__init__()
        self.references, self.text, self.open = [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.references += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text


def test_the_page_needs_no_other_file_and_is_well_nested(html):
    page = Page(html)
    assert page.open == []
    assert all(reference.startswith(("data:", "#")) for reference in page.references)
    assert "url(" not in html
    assert "<script" not in html
    anchors = {reference[1:] for reference in page.references if reference.startswith("#")}
    assert anchors == set(re.findall(r'id="(\w+)"', html))


def test_the_page_says_what_was_measured_and_how(html):
    text = Page(html).text
    for expected in (
        "Learned <policy>",
        "612.3",
        "±4.1",
        "10,000 samples a seed · 2 seeds (7, 8) · balanced labels · Lite2 at 64 px",
        "Digits are too few to rank policies.",
        "1 h 02 min",
        '"learning_rate": 0.0001',
        "adanat quickstart",
        "6 of 9 tokens",
    ):
        assert expected in text


def test_the_best_policy_is_marked_but_no_bound_and_no_tie(html):
    assert re.findall(r'class="best">([\d.]+)', html) == ["0.400", "498.2"]


def test_equal_data_give_equal_text(data, html):
    assert render_report(data) == html


def test_an_almost_empty_report_renders():
    html = render_report(ReportData(title="T", seconds={}, command="c", config={}, versions={}))
    assert "#run" in html
    assert "#samples" not in html


def test_writing_replaces_the_page_in_one_move(tmp_path):
    bare = ReportData(title="First", seconds={}, command="c", config={}, versions={})
    path = tmp_path / "deep" / "report.html"
    assert write_report(bare, path) == path
    write_report(dataclasses.replace(bare, title="Second"), path)
    assert "Second" in path.read_text(encoding="utf-8")
    assert list(path.parent.iterdir()) == [path]


def test_a_strip_keeps_the_pixels_and_shrinks_large_images():
    images = make_images(3, 3, 8, 6)
    sheet = strip(images, gap=2)
    assert sheet.shape == (8, 3 * 6 + 2 * 2, 3)
    np.testing.assert_array_equal(sheet[:, 8:14], images[1].transpose(1, 2, 0))
    assert (sheet[:, 6:8] == 255).all()
    assert strip(make_images(1, 3, 512, 256)).shape == (MAX_SIDE, MAX_SIDE // 2, 3)


def test_a_token_map_tells_new_kept_and_masked_apart():
    before = np.array([[True, False], [False, False]])
    after = np.array([[True, True], [False, False]])
    picture = token_map(after, before, cell=4)
    kept, new, masked = picture[0, 0], picture[0, 4], picture[4, 0]
    assert picture.shape == (8, 8, 3)
    assert len({tuple(colour) for colour in (kept, new, masked)}) == 3
    np.testing.assert_array_equal(token_map(before, None, cell=4)[0, 0], new)


def test_a_png_uri_decodes_to_the_picture():
    picture = make_images(5, 7, 3)
    kind, text = png_uri(picture).split(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))), picture
    )


def test_figures_are_saved_for_the_documentation(data, tmp_path):
    figures = {
        "samples": plots.samples_figure(data.samples, data.class_names),
        "decoding": plots.decoding_figure(data.traces),
        "parameters": plots.parameter_figure(data.parameter_curves),
        "steps": plots.step_figure(data.step_curves, "distance"),
    }
    for name, figure in figures.items():
        plots.save_png(figure, tmp_path / "figures" / f"{name}.png", dpi=40)
        with Image.open(tmp_path / "figures" / f"{name}.png") as picture:
            assert min(picture.size) > 30


@pytest.mark.filterwarnings("error:constrained_layout")
def test_a_policy_has_the_same_colour_in_every_picture_and_no_other_shares_it():
    few = plots.policy_colours(["adaptive", "static_tuned"])
    names = ["mine", "static", "static_tuned", "adaptive_1", "adaptive", "adaptive_static"]
    many = plots.policy_colours(names)
    assert few.items() <= many.items()
    assert len(set(many.values())) == len(names)


def test_long_captions_leave_room_for_the_pictures():
    captions = ("a red apple left of two green pears above a yellow moon on blue ground",) * 2
    names = ("static", "static_tuned", "adaptive_static")
    sets = [SampleSet(name=name, images=make_images(2, 1, 3, 8, 8)) for name in names]
    figure = plots.samples_figure(sets, captions)
    figure.draw_without_rendering()
    shown = [axes.get_window_extent() for axes in figure.axes]
    assert min(box.width for box in shown) > 0.2 * figure.dpi
    titles = [axes.title.get_window_extent() for axes in figure.axes[:3]]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(titles))
    label = figure.axes[0].yaxis.label
    assert label.get_window_extent().x0 >= 0
    assert label.get_text().splitlines()[0] in captions[0]


def test_shapes_that_do_not_fit_are_refused(data):
    with pytest.raises(ValueError, match="float64"):
        SampleSet(name="x", images=np.zeros((2, 3, 3, 8, 8)))
    with pytest.raises(ValueError, match="1 class names"):
        dataclasses.replace(data, class_names=("zero",))
    with pytest.raises(ValueError, match="all must agree"):
        dataclasses.replace(
            data, samples=(*data.samples, SampleSet(name="x", images=make_images(2, 4, 3, 8, 8)))
        )
    with pytest.raises(ValueError, match=r"\(4, h, w\)"):
        make_trace(revealed=np.ones((3, 3, 3), dtype=bool))
    with pytest.raises(ValueError, match=r"\(4, 4\)"):
        make_trace(parameters=np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"\(T, 4\)"):
        ParameterCurves(name="x", values=np.ones((4, 3)))
    with pytest.raises(ValueError, match="empty"):
        StepCurve(name="x", distances={})
    with pytest.raises(ValueError, match=r"\(n,\)"):
        Series(label="x", steps=np.arange(3), values=np.arange(4.0))
