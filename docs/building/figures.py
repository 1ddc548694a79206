"""Draws the documentation's figures: scikit-image's pictures through the bundled model; `make figures`."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from skimage import data

from occluscope import analyses
from occluscope.analyses.contract import ImageRef
from occluscope.analyses.gathering import Gathered
from occluscope.models import card
from occluscope.models.loading import LoadedModel, load
from occluscope.rendering import DrawingOptions, render_png
from occluscope.results import Metric, NamedResult

FOLDER: Final = Path(__file__).parents[1] / "figures"
SIDE: Final = 420  # pixels of a picture's longer side
DPI: Final = 110
WIDTH: Final = 8.5  # inches of several pictures
COLOURS: Final = 192  # of a PNG's palette: half the bytes, and no eye sees it


def main() -> None:
    """Draw all of them."""
    FOLDER.mkdir(exist_ok=True)
    model = load(card("efficientnet_lite0"))
    three = {name: photograph(name) for name in ("coffee", "camera", "chelsea")}
    maps(model, three)
    windows(model, three["chelsea"])
    baselines(model, three["coffee"])
    targets(model, three["chelsea"])
    importance(model, three["coffee"])
    turned(model, three["coffee"])
    changed()


def photograph(name: str) -> Image.Image:
    """One of the pictures that ship with scikit-image."""
    return Image.fromarray(getattr(data, name)()).convert("RGB")


def run(
    model: LoadedModel, analysis: str, picture: Image.Image, params: Mapping[str, Any]
) -> tuple[list[NamedResult], list[Metric]]:
    """What an analysis gives for one picture."""
    spec = analyses.spec(analysis)
    parsed = spec.parse(params)
    units = spec.plan(parsed, model.card, [ImageRef("picture", *picture.size)], {})
    outcome = analyses.compute(analysis)(model, [model.card.preparation.prepare(picture)], parsed, units[0], Gathered())
    return outcome.results, outcome.metrics


def maps(model: LoadedModel, pictures: Mapping[str, Image.Image]) -> None:
    """Three pictures, and what their most probable classes stand on."""
    titles, images = [], []
    for picture in pictures.values():
        results, metrics = run(model, "occlusion", picture, {"window": 32, "stride": 8})
        titles.append(f"{predicted(results)}, p = {value(metrics, 'base_probability'):.2f}")
        images.append(overlay(first(results, "pixel_map"), picture))
    beside("occlusion", images, titles, columns=3)


def windows(model: LoadedModel, picture: Image.Image) -> None:
    """One picture with small and large windows."""
    titles, images = [], []
    for window in (16, 32, 64, 96):
        results, metrics = run(model, "occlusion", picture, {"window": window, "stride": 8})
        titles.append(f"window {window}, largest drop {value(metrics, 'max_drop'):.2f}")
        images.append(overlay(first(results, "pixel_map"), picture))
    beside("windows", images, titles, columns=2)


def baselines(model: LoadedModel, picture: Image.Image) -> None:
    """One picture, covered with different things."""
    titles, images = [], []
    for baseline in ("grey", "window_mean", "blur", "noise"):
        results, metrics = run(model, "occlusion", picture, {"window": 48, "stride": 8, "baseline": baseline})
        titles.append(f"{baseline}, largest drop {value(metrics, 'max_drop'):.2f}")
        images.append(overlay(first(results, "pixel_map"), picture))
    beside("baselines", images, titles, columns=2)


def targets(model: LoadedModel, picture: Image.Image) -> None:
    """One picture, two classes that share the probability."""
    titles, images = ["the picture"], [small(picture)]
    for target in ("tiger cat", "Egyptian cat"):
        results, _ = run(model, "occlusion", picture, {"window": 32, "stride": 8, "target": target})
        titles.append(target)
        images.append(overlay(first(results, "pixel_map"), picture))
    beside("targets", images, titles, columns=3)


def importance(model: LoadedModel, picture: Image.Image) -> None:
    """Curves of insertion and deletion."""
    results, _ = run(model, "occlusion", picture, {"window": 32, "stride": 8})
    write("insertion-deletion", drawn(first(results, "insertion_deletion")))


def turned(model: LoadedModel, picture: Image.Image) -> None:
    """One picture, turned once round."""
    family = {"family": "rotate", "range": [0, 350], "steps": 36}
    results, _ = run(model, "invariance", picture, {"families": [family], "target": "espresso"})
    write("invariance", drawn(first(results, "curves")))


# Kernel, stride and padding of each layer that spreads a change; branches of ResNet's blocks end with the main one.
VGG16: Final = [layer for convolutions in (2, 2, 3, 3, 3) for layer in [*[(3, 1, 1)] * convolutions, (2, 2, 0)]]
RESNET18: Final = [
    (7, 2, 3), (3, 2, 1), *[(3, 1, 1)] * 4, *[(3, 2, 1), *[(3, 1, 1)] * 3] * 3,
]  # fmt: skip


def changed() -> None:
    """How much of each layer's map a window changes."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, layers in (("VGG-16", VGG16), ("ResNet-18", RESNET18)):
        shares = shares_changed(layers, size=224, window=32)
        depth = np.linspace(0, 1, len(shares))
        axes.step(depth, shares, where="post", label=name)
    axes.set(
        xlabel="depth (0: the input, 1: the last convolution or pooling)", ylabel="share of the map", ylim=(0, 1.05)
    )
    axes.legend()
    axes.spines[["top", "right"]].set_visible(False)
    write("changed", as_image(figure))


def shares_changed(layers: Sequence[tuple[int, int, int]], size: int, window: int) -> list[float]:
    """The share of the input's and each layer's map that a window in the middle of the input changes.

    layers: kernel, stride and padding of each.
    """
    start = (size - window) // 2
    stop, shares = start + window, [(window / size) ** 2]
    for kernel, stride, padding in layers:
        start = max(-(-(start + padding - kernel + 1) // stride), 0)
        size_after = (size + 2 * padding - kernel) // stride + 1
        stop = min((stop - 1 + padding) // stride + 1, size_after)
        size = size_after
        shares.append(((stop - start) / size) ** 2)
    return shares


def first(results: Sequence[NamedResult], name: str) -> NamedResult:
    """The first result of this name."""
    return next(one for one in results if one.name == name)


def value(metrics: Sequence[Metric], name: str) -> float:
    """The first number of this name."""
    return next(one.value for one in metrics if one.name == name)


def predicted(results: Sequence[NamedResult]) -> str:
    """The most probable class."""
    return str(first(results, "top_classes").result.to_json()["rows"][0][1])


def overlay(result: NamedResult, picture: Image.Image) -> Image.Image:
    """A map on its picture."""
    options = DrawingOptions(overlay=True, size=SIDE)
    return opened(render_png(result.result, options, original=picture))


def drawn(result: NamedResult) -> Image.Image:
    """A result as the service draws it."""
    return opened(render_png(result.result, DrawingOptions(size=760)))


def small(picture: Image.Image) -> Image.Image:
    """The picture at the size of the overlays."""
    reduced = picture.copy()
    reduced.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return reduced


def beside(name: str, images: Sequence[Image.Image], titles: Sequence[str], columns: int) -> None:
    """Write pictures in rows under their titles."""
    rows = -(-len(images) // columns)
    height = max(image.height / image.width for image in images)
    figure = Figure(figsize=(WIDTH, rows * (WIDTH / columns * height + 0.3)), layout="constrained")
    for axes, image, title in zip(np.ravel(figure.subplots(rows, columns)), images, titles, strict=True):
        axes.imshow(np.asarray(image))
        axes.set_title(title, fontsize=9)
        axes.axis("off")
    write(name, as_image(figure))


def as_image(figure: Figure) -> Image.Image:
    """A figure's pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, format="png")
    return opened(buffer.getvalue())


def opened(png: bytes) -> Image.Image:
    """A PNG's pixels."""
    return Image.open(io.BytesIO(png)).convert("RGB")


def write(name: str, image: Image.Image) -> None:
    """Write a small PNG."""
    path = FOLDER / f"{name}.png"
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
