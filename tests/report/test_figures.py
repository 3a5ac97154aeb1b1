"""Pictures as files: each as PDF and PNG, lines as lines, and read in black and white."""

import re
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colors
from PIL import Image

from mechverify import Bounds, Share, ball, capture, prove, tokens, union
from mechverify.kernel.core.counts import Counts
from mechverify.report import samples
from mechverify.report.checked import Checked
from mechverify.report.compare import fronts
from mechverify.report.figures import RIGHT, WRONG, cells, pictures, write_figures
from mechverify.report.frontier import Mean, Point
from mechverify.report.style import BAD, GOOD, SHADES
from tests.report import made


@pytest.fixture(scope="module")
def written(kinds, tmp_path_factory):
    return write_figures(tmp_path_factory.mktemp("figures"), [*kinds.values()])


def test_each_picture_is_a_pdf_and_a_png(kinds, written):
    names = {f"{kind}-{picture.name}" for kind, one in kinds.items() for picture in pictures(one)} | {"front-1"}
    assert {path.name for path in written} == {f"{n}{s}" for n in names for s in (".pdf", ".png")}
    for path in written:
        assert path.stat().st_size > 1_000
        if path.suffix == ".png":
            assert np.asarray(Image.open(path).convert("L")).std() > 5  # something is drawn


def test_a_pdf_holds_shapes_and_letters(written):
    for path in written:
        data = path.read_bytes()
        if path.suffix != ".pdf" or path.name == "share-map.pdf":  # a map is an image, of so many points
            continue
        drawn = b"".join(zlib.decompress(s) for s in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", data, re.DOTALL)
                         if s[:1] == b"x")  # fmt: skip
        assert b"BT" in drawn and b"Tj" in drawn + b"Tj" * (b"TJ" in drawn), path
        if "attention" not in path.name and "values" not in path.name:
            assert b"/Subtype /Image" not in data, path


def lightness(colour) -> float:
    r, g, b = colors.to_rgb(colour)
    return 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2


def test_what_differs_in_colour_differs_in_lightness_or_hatching():
    from matplotlib import colormaps

    shades = [lightness(c[:3]) for c in colormaps[SHADES](np.linspace(0, 1, 64))]
    wrong = [lightness(c[:3]) for c in WRONG]
    assert (np.diff(shades) < 0).all() and (np.diff(wrong) <= 0).all() and wrong[0] > 4 * wrong[-1]
    assert wrong[0] < lightness(RIGHT) - 0.1 and wrong[-1] > lightness("#14171b")
    for paper in (lightness("#ffffff"), lightness("#14171b")):  # 3 : 1 on either, as for large signs
        for ink in (GOOD, BAD):
            light, dark = sorted((lightness(ink), paper), reverse=True)
            assert (light + 0.05) / (dark + 0.05) > 3


def drawn(found: list) -> tuple[str, list]:
    """The caption, and the meshes' values with their hatching."""
    one = made.checked(made.accuracy(wrong=False))
    one.theorem.cells[:] = found
    _, caption, _, figure = cells(one)
    return caption, [(mesh.get_array(), mesh.get_hatch()) for mesh in figure.axes[0].collections]


def test_a_picture_shows_the_worst_of_cells_at_one_place():
    """Each order of a cell that is right everywhere and one that isn't, with the same token and value."""
    good, bad = (0, (3, 0), 10, Counts(0, 0)), (0, (3, 1), 2**2000, Counts(0, 1))
    for found in ([good, bad], [bad, good]):
        _, meshes = drawn(found)
        proved, open_ = (np.ma.asarray(values) for values, _ in meshes)
        assert proved.count() == 0 and open_.count() == 1


def test_what_was_not_proved_is_hatched_and_said():
    right, nothing = (0, (3,), 10, Counts(0, 0)), (1, (3,), 10, Counts(0, 10))
    caption, meshes = drawn([right, nothing])
    assert "Hatched: nothing was proved of it." in caption and "Coloured" not in caption
    assert [hatch for _, hatch in meshes] == [None, "////"]
    caption, meshes = drawn([right])
    assert "Hatched" not in caption and len(meshes) == 1


def test_values_are_those_of_the_kernel_and_inputs_are_in_the_domain(kinds):
    for one in kinds.values():
        claim = one.theorem.claim
        inputs = samples.drawn(claim, 50)
        low, high = claim.domain.low, claim.domain.high
        assert len(inputs.tokens) == 50 and (low <= inputs.points).all() and (inputs.points <= high).all()
        assert all(
            set(column) <= set(ids) for column, ids in zip(inputs.tokens.T.tolist(), claim.domain.tokens, strict=True)
        )
    bounds = kinds["bounds"].theorem.claim
    inputs = samples.drawn(bounds, 50)
    expected = np.maximum(inputs.points, 0) * [1, -2]
    np.testing.assert_allclose(samples.entries(bounds, inputs), expected, rtol=0, atol=1e-12)
    fold = kinds["fold"].theorem
    wrong = samples.Inputs(fold.wrong, np.zeros((len(fold.wrong), 0)))
    assert (samples.entries(fold.claim, wrong) < 0).all()


def test_guards_are_kept_where_inputs_are_drawn():
    doc, data = made.networks.document(made.NET, n=2)
    doc["claim"]["graph"]["nodes"] = [*made.NET.rows, ["view", [0], [[], 0, []]]]
    doc["claim"]["graph"]["sites"] += [["first", 4]]
    doc["claim"]["where"] = ["first"]
    claim = made.checked(made.networks.file(doc, data)).theorem.claim
    inputs = samples.drawn(claim, 100)
    assert len(inputs.points) == 100 and (inputs.points[:, 0] >= 0).all()


def test_a_value_that_is_too_large_has_no_picture():
    net = made.Network(
        [made.given(1), ["exp", [0], None], ["exp", [1], None]], {}, [(np.zeros(1), np.full(1, 6.0))], [], 0
    )
    doc, data = made.networks.document(net)
    assert list(pictures(made.checked(made.networks.file(doc, data)))) == []


def test_certificates_of_one_claim_stand_beside_each_other(kinds):
    ((caption, alt, _),) = fronts([*kinds.values()])
    assert caption.startswith("Claim 1: logits[2] = max(x0, x1, x2). Further left")
    assert "fold.cert: " in alt and "listed.cert: " in alt and "bounds" not in alt
    assert fronts([kinds["fold"], kinds["bounds"]]) == []
    tight, loose = (made.checked(made.bounds(high=[h, 0.5]), f"{h}.cert") for h in (1.25, 2.0))
    ((_, alt, _),) = fronts([tight, loose])
    assert alt.startswith("reached width / proved width. 1.25.cert: ")


def test_of_a_union_inputs_of_its_boxes_alone_are_drawn():
    """Between two balls the condition fails: no picture of the theorem, which says nothing of that, may show it."""
    model = capture(_Squares().double().eval(), torch.zeros(1, 2, dtype=torch.float64))
    over = union(ball([2.0, 0.0], 0.5), ball([-2.0, 0.0], 0.5), ball([-2.25, 0.0], 0.5))
    squares = model["output"][0]
    for claim in (Share(squares > 1, over=over, at_least=1), Bounds(squares, over=over, at_least=1)):
        outcome = prove(claim)
        inputs = samples.drawn(outcome.theorem.claim, 200)
        assert outcome.verdict == "PROVED" and outcome.theorem.claim.union.holds(inputs.points).all()
        right = (inputs.points[:, 0] > 0).mean()
        assert len(inputs.points) == 200 and 0.3 < right < 0.6  # of a volume of 1 beside one of 1.25
        found = {p.name: p for p in pictures(Checked(Path("union.cert"), outcome.theorem, 0.0, outcome.certificate))}
        said = re.search("over the union's boxes, from about ([0-9.]+) to ", found["map"].alt)
        assert said and float(said[1]) > 1.25  # a grid's point in the box; of the condition 1.25, and of the value 2.25
        assert "margins" not in found or "for none of them" in found["margins"].caption


def test_a_share_beside_others_is_rounded_down(monkeypatch):
    one = made.checked(made.accuracy(wrong=False))
    nearly = Checked(one.path, one.theorem, 0.0, one.data)
    least = Point("", "a", "", 1, 0, *[Mean(1 - 2.0**-40, 0.0)] * 3, 0, None, 0.0, 0.0)
    monkeypatch.setattr("mechverify.report.compare._counted", lambda *_: [least, least])
    ((_, alt, _),) = fronts([one, nearly])
    assert "0.999999" in alt and "1.000000" not in alt


def test_claims_beside_each_other_say_how_many_inputs_they_are_about(monkeypatch):
    """Not all that the domain's sets and box hold, where a guard or a union leaves some out."""
    groups: list[str] = []
    monkeypatch.setattr("mechverify.report.compare._counted", lambda group, _: groups.append(group) or [])
    monkeypatch.setattr("mechverify.report.compare._bounded", lambda group, _: groups.append(group) or [])
    x = tokens("x", length=2, vocab=3)
    squares = capture(_Squares().double().eval(), torch.zeros(1, 2, dtype=torch.float64))["output"][0]
    balls = union(ball([2.0, 0.0], 0.5), ball([-2.0, 0.0], 0.5))
    same = capture(_Same().eval(), torch.zeros(1, 2, dtype=torch.long))["output"][0]
    for claim in (Share(same >= 1, over=x, given=[x[0] < x[1]]), Bounds(same, over=x, given=[x[0] < x[1]]),
                  Bounds(squares, over=balls)):  # fmt: skip
        outcome = prove(claim)
        one = Checked(Path("a.cert"), outcome.theorem, 0.0, outcome.certificate)
        assert fronts([one, one]) == []
    assert groups == ["claim 1, 3 inputs", "claim 1, inputs that are given", "claim 1, a union of boxes"]


class _Same(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(3, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embed(ids).sum(1)


class _Squares(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * x).sum(-1, keepdim=True)
