"""Invariance on whole models, real and made, and what a request must say."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from occluscope import analyses
from occluscope.analyses.contract import ImageRef, Outcome, Part
from occluscope.analyses.gathering import Gathered
from occluscope.analyses.invariance.families import FAMILIES
from occluscope.analyses.layer_choice import layer_names
from occluscope.errors import InvalidInputError
from occluscope.models import ModelCard, card
from occluscope.models.card import Layer
from occluscope.models.loading import LoadedModel
from occluscope.results import Curves, Matrix, Table
from tests.conftest import random_picture
from tests.later_stages import run_later
from tests.unit.analyses.test_invariance_transforms import preparation

SPEC = analyses.spec("invariance")
LITE0 = card("efficientnet_lite0")
CPU = torch.device("cpu")


def run(model: LoadedModel, pictures: list[Image.Image], **params: Any) -> tuple[Outcome, list[Outcome]]:
    parsed = SPEC.parse(params)
    units = SPEC.plan(parsed, model.card, [ImageRef(str(n), *picture.size) for n, picture in enumerate(pictures)], {})
    outcomes = []
    for unit, picture in zip(units, pictures, strict=True):
        reports: list[int] = []
        outcomes.append(
            analyses.compute("invariance")(
                model,
                [model.card.preparation.prepare(picture)],
                parsed,
                unit,
                Gathered(lambda done, _preview=None, reports=reports: reports.append(done)),
            )
        )
        assert reports == sorted(reports)
        assert reports[-1] == unit.steps
    parts = [Part(unit, outcome.kept) for unit, outcome in zip(units, outcomes, strict=True)]
    return run_later("invariance", model.card, parsed, parts), outcomes


def curves(outcome: Outcome, name: str, variant: str) -> Curves:
    found = next(one.result for one in outcome.results if (one.name, str(one.variant)) == (name, variant))
    assert isinstance(found, Curves)
    return found


def metric(outcome: Outcome, name: str, variant: str) -> float:
    return next(one.value for one in outcome.metrics if (one.name, str(one.variant)) == (name, variant))


def rows(outcome: Outcome, name: str) -> list[dict[str, Any]]:
    table = next(one.result for one in outcome.results if one.name == name)
    assert isinstance(table, Table)
    return [dict(zip((column.name for column in table.columns), row, strict=True)) for row in table.rows]


def small(module: nn.Module, size: int, layers: dict[str, tuple[int, ...]]) -> LoadedModel:
    """A model of one's own on pictures of `size`, which it sees pixel for pixel, in 0–1."""
    update = {"crop": (size, size), "resize": size, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    own = tuple(Layer(name=name, type="Conv2d", shape=shape) for name, shape in layers.items())
    made: ModelCard = LITE0.model_copy(
        update={"preparation": LITE0.preparation.model_copy(update=update), "layers": own}
    )
    return LoadedModel(made, module.eval(), CPU)


class Pooled(nn.Module):
    """1 × 1 convolution, ReLU, global average pooling, two classes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.head = nn.Conv2d(3, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.conv(x).relu()).flatten(1))
        return logits


def test_global_average_pooling_does_not_notice_flips() -> None:
    model = small(Pooled(), 32, {"conv": (6, 32, 32), "pool": (6, 1, 1)})
    together, (outcome,) = run(model, [random_picture(1, (32, 32))], families="flip", layers=["conv", "pool"])
    found = curves(outcome, "curves", "flip")
    assert found.labels == ("none", "left–right", "upside down", "both")
    by_name = {series.name: series.values for series in found.series}
    np.testing.assert_allclose(by_name["pool (Euclidean)"], 0, atol=1e-5)
    np.testing.assert_allclose(found.series[0].values, found.series[0].values[0], atol=1e-6)
    assert (by_name["conv (Euclidean)"][1:] > 0.1).all()
    (row,) = rows(together, "augmentations")
    assert row["kept"] == pytest.approx(1)


class Circular(nn.Module):
    """Two convolutions with circular padding, of stride 1 and 2; keeps what the second gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.second = nn.Conv2d(4, 5, 3, stride=2, padding=1, padding_mode="circular")
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        maps = self.second(self.first(x).relu())
        self.seen += list(maps)
        logits: Tensor = maps.mean((2, 3))
        return logits


def test_a_shift_by_whole_strides_shifts_the_features_exactly() -> None:
    """The picture repeats itself all round, so a shift of what is seen is a turn of the input."""
    tile = np.asarray(random_picture(2, (16, 16)))
    module = Circular()
    model = small(module, 16, {"second": (5, 8, 8)})
    model = LoadedModel(model.card.model_copy(update={"preparation": preparation(16, 80).model_copy(
        update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})}), module, CPU)  # fmt: skip
    picture = Image.fromarray(np.tile(tile, (5, 5, 1)))
    chosen = {"family": "translate_x", "range": [-8, 8], "steps": 9}
    _, (outcome,) = run(model, [picture], families=[chosen], layers=["second"])
    unchanged, *shifted = module.seen[:9]
    strengths = [by for by in range(-8, 9, 2) if by]
    for by, maps in zip(strengths, shifted, strict=True):
        torch.testing.assert_close(maps, unchanged.roll(by // 2, dims=2), atol=1e-5, rtol=0)
    found = curves(outcome, "curves", "translate_x")
    np.testing.assert_allclose(found.series[0].values, found.series[0].values[0], atol=1e-6)
    assert metric(outcome, "tolerance_below", "translate_x") == -8


def test_curves_on_a_real_picture_are_the_models_own_answers(
    lite0: LoadedModel, photographs: dict[str, Image.Image]
) -> None:
    picture = photographs["coffee"]
    families = [
        {"family": "translate_y", "range": [-60, 60], "steps": 5},
        {"family": "brightness", "range": [0.2, 2], "steps": 4},
    ]
    together, (outcome,) = run(lite0, [picture], families=families, layers=["first", "last", "_fc"])
    prepared = lite0.card.preparation.prepare(picture)
    with torch.inference_mode():
        base = lite0.module(lite0.tensor(prepared.rgb)[None]).double().softmax(1)[0]
    assert metric(outcome, "base_probability", "") == pytest.approx(float(base.max()), abs=1e-6)
    found = curves(outcome, "curves", "brightness")
    assert found.axis.tolist() == pytest.approx([0.2, 0.8, 1, 1.4, 2])
    assert found.strip is not None
    assert found.strip.pictures.shape == (5, 72, 72, 3)
    darker = torch.from_numpy(prepared.rgb).permute(2, 0, 1)
    darker_rgb = v2.functional.adjust_brightness(darker, 0.2).permute(1, 2, 0).numpy()
    features: dict[str, Tensor] = {}
    handle = lite0.module.get_submodule("_fc").register_forward_hook(
        lambda _module, _given, output: features.update(fc=output)
    )
    with handle, torch.inference_mode():
        lite0.module(lite0.tensor(prepared.rgb)[None])
        unchanged = features["fc"].double()
        probability = lite0.module(lite0.tensor(darker_rgb)[None]).double().softmax(1)[0, int(base.argmax())]
    by_name = {series.name: series.values for series in found.series}
    assert found.series[0].name == "p(espresso)"
    assert found.series[0].values[0] == pytest.approx(float(probability), abs=1e-5)
    assert found.series[0].values[2] == float(base.max())
    assert by_name["_fc (Euclidean)"][0] == pytest.approx(float((features["fc"].double() - unchanged).norm()), rel=1e-4)
    cosine = 1 - torch.cosine_similarity(features["fc"].double(), unchanged).item()
    assert by_name["_fc (cosine)"][0] == pytest.approx(cosine, abs=1e-5)
    assert all(values[2] == 0 for name, values in by_name.items() if "p(" not in name)
    assert 0 < metric(outcome, "single_pixel_change", "translate_y") < 0.1
    assert {one.name for one in together.results} == {"augmentations", "layers"}
    assert all(row["invariance_score"] is None for row in rows(together, "layers"))


def symmetrical(picture: Image.Image, turns: tuple[int, ...]) -> Image.Image:
    """The middle of a picture, brought together with its turned selves, inside a circle."""
    side = min(picture.size)
    pixels = np.asarray(picture.crop((0, 0, side, side)).resize((300, 300)), dtype=float)
    mean = np.mean([np.rot90(pixels, turn) for turn in turns], axis=0)
    y, x = np.mgrid[0:300, 0:300] - 149.5
    mean[np.hypot(x, y) > 150] = 127
    return Image.fromarray(mean.round().astype(np.uint8))


@pytest.mark.parametrize(("turns", "order"), [((0, 1, 2, 3), 4), ((0, 2), 2), ((0,), 1)])
def test_a_symmetrical_picture_has_the_order_of_its_symmetry(
    lite0: LoadedModel, photographs: dict[str, Image.Image], turns: tuple[int, ...], order: int
) -> None:
    picture = symmetrical(photographs["coffee"], turns)
    chosen = {"family": "rotate", "range": [0, 345], "steps": 24}
    _, (outcome,) = run(lite0, [picture], families=[chosen], layers=["last"])
    last = layer_names(("last",), lite0.card)[0]
    assert metric(outcome, "symmetry_order", "rotate") == order
    assert metric(outcome, "symmetry_order", f"rotate · {last}") == order
    if order > 1:
        assert metric(outcome, "symmetry_strength", "rotate") > 0.9


def test_several_pictures_are_brought_together(lite0: LoadedModel, photographs: dict[str, Image.Image]) -> None:
    pictures = [photographs[name] for name in ("coffee", "chelsea", "rocket")]
    families = [{"family": "rotate", "range": [0, 270], "steps": 4}, {"family": "blur", "steps": 3}]
    params = {"families": families, "layers": ["first", "last"]}
    together, outcomes = run(lite0, pictures, **params)
    mean = curves(together, "mean_curves", "rotate")
    single = np.stack([curves(outcome, "curves", "rotate").series[0].values for outcome in outcomes])
    np.testing.assert_allclose(mean.series[0].values, single.mean(axis=0))
    assert mean.series[0].high is not None
    np.testing.assert_allclose(mean.series[0].high, (single.mean(axis=0) + single.std(axis=0)).clip(max=1))
    other, _ = run(lite0, pictures[::-1], **params)
    assert rows(together, "augmentations") == [
        pytest.approx(row) if not isinstance(row, dict) else {k: pytest.approx(v) if isinstance(v, float) else v
                                                              for k, v in row.items()}
        for row in rows(other, "augmentations")
    ]  # fmt: skip
    layers = rows(together, "layers")
    assert len(layers) == 2 * 2
    scores = {(row["family"], row["layer"]): row["invariance_score"] for row in layers}
    assert all(score < 1 for score in scores.values())
    variance = next(
        one.result for one in together.results if one.name == "unit_variance" and str(one.variant) == "rotate"
    )
    assert isinstance(variance, Matrix)
    assert variance.values.shape == (2, 1280)
    assert np.isfinite(variance.values[0]).sum() <= 32
    known = variance.values[1][np.isfinite(variance.values[1])]
    assert (np.diff(known) >= 0).all()
    weakest = rows(together, "augmentations")
    assert weakest[0]["kept"] <= weakest[1]["kept"]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_augmentation_that_is_called_for_runs(family: str, photographs: dict[str, Image.Image]) -> None:
    chosen = SPEC.parse({"families": [family]}).families[0]  # type: ignore[attr-defined]
    code = chosen.about.augmentation(chosen.reach, (224, 224))
    transform = eval(code, {"v2": v2, "torch": torch})  # noqa: S307 - the code is what is tested
    picture = photographs["coffee"].resize((224, 224))
    torch.manual_seed(1)
    changed = transform(picture if family != "jpeg" else v2.functional.pil_to_tensor(picture))
    assert tuple(v2.functional.get_size(changed)) == (224, 224)


@pytest.mark.parametrize(
    ("params", "path", "message"),
    [
        ({"families": ["spin"]}, "params.families.0.family", "Input should be"),
        ({"families": []}, "params.families", "at least 1"),
        ({"families": ["rotate", "rotate"]}, "params.families", "rotate is there twice"),
        ({"families": [{"family": "rotate", "range": [5, 90]}]}, "params.families.0", "must hold 0"),
        ({"families": [{"family": "scale", "range": [0, 2]}]}, "params.families.0", "within 0.1"),
        ({"families": [{"family": "scale", "range": [2, 1]}]}, "params.families.0", "from low to high"),
        ({"families": [{"family": "blur", "steps": 1}]}, "params.families.0.steps", "greater than or equal to 2"),
        ({"families": [{"family": "blur", "steps": 10**6}]}, "params.families.0.steps", "less than or equal to 361"),
        ({"families": [{"family": "blur", "range": [0, "NaN"]}]}, "params.families.0.range.1", "number"),
        ({"families": [{"family": "flip", "steps": 3}]}, "params.families.0", "no steps"),
        ({"families": 7}, "params.families.0", "valid dictionary"),
        ({"layers": ["_blocks.99"]}, "params.layers", "no layer '_blocks.99'"),
        ({"target": "unicorn"}, "params.target", "no label"),
        ({"target": 1000}, "params.target", "classes 0 to 999"),
        ({"fill": "purple"}, "params.fill", "Input should be"),
    ],
)
def test_bad_input_names_its_field(params: dict[str, Any], path: str, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        SPEC.plan(SPEC.parse(params), LITE0, [ImageRef("a", 300, 300)], {})
    assert [error.path for error in caught.value.errors] == [path]
    assert message in caught.value.errors[0].message


def test_models_without_maps_are_asked_as_well() -> None:
    """Swin gives its channels last, ViT tokens: depth counts those."""
    for name, last in (("swin_t", "permute"), ("vit_b_16", "encoder")):
        (unit,) = SPEC.plan(SPEC.parse({}), card(name), [ImageRef("a", 300, 300)], {})
        assert unit.steps > 100
        assert layer_names((0.0, 0.5, 1.0), card(name))[-1].startswith(last)
        assert len(layer_names((0.0, 0.5, 1.0), card(name))) == 3


def test_tokens_are_places_of_units() -> None:
    """Of a transformer the units are the features of a token."""
    from torchvision.models import VisionTransformer

    vit = VisionTransformer(32, 8, 2, 2, 12, 24, num_classes=1000)
    torch.manual_seed(0)
    nn.init.normal_(vit.heads.head.weight)
    model = small(vit, 32, {"encoder.layers.encoder_layer_0": (17, 12), "encoder.layers.encoder_layer_1": (17, 12)})
    pictures = [random_picture(seed, (32, 32)) for seed in (1, 2)]
    together, _ = run(model, pictures, families=["brightness"], layers=["first", "last"])
    found = next(one.result for one in together.results if one.name == "unit_variance")
    assert isinstance(found, Matrix)
    assert found.values.shape == (2, 12)
