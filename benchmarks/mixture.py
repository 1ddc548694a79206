"""Small jobs of every kind, by number: analyses, methods, precisions, models, masks, large pictures."""

from typing import Any, Final

from PIL import Image
from skimage import data as skimage_data
from sklearn.datasets import load_sample_image

from occluscope.client import Client
from tests.conftest import encode, random_picture

MODELS: Final = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
COARSE: Final[dict[str, Any]] = {"window": 112, "stride": 112, "insertion_deletion": False}
FINER: Final[dict[str, Any]] = {"window": 64, "stride": 48, "insertion_deletion": False}
EVERY_LARGE: Final = 20  # jobs between two with a picture of 12 megapixels
EVERY_NEW: Final = 7  # jobs between two with a picture that nobody uploaded before

OCCLUSIONS: Final[tuple[dict[str, Any], ...]] = (
    COARSE,
    {**FINER, "baseline": "blur"},
    {**COARSE, "window": [[56, 56], [112, 112]], "baseline": "image_mean"},
    {**COARSE, "precision": "half"},
    {**COARSE, "method": "naive"},
    {**FINER, "stride": 32, "method": "adaptive"},
    {**FINER, "precision": "half", "baseline": "noise"},
    {**COARSE, "target": ["top1", 504, 967]},
    {**COARSE, "window": [64, 96], "within": [32, 32, 192, 192]},
)


class Pictures:
    """What jobs look at, uploaded: six photographs, one of 12 megapixels, and a mask for the first."""

    def __init__(self, client: Client) -> None:
        self._client = client
        names = ("coffee", "camera", "chelsea", "rocket")
        photographs = [Image.fromarray(getattr(skimage_data, name)()).convert("RGB") for name in names]
        photographs += [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
        mask = Image.new("L", photographs[0].size)
        width, height = mask.size
        mask.paste(255, (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
        self.sizes = [photograph.size for photograph in photographs]
        self.ids = [client.upload(encode(photograph)).id for photograph in photographs]
        self.mask = client.upload(encode(mask)).id
        self.large = client.upload(encode(photographs[-1].resize((4000, 3000)), "JPEG")).id

    def new(self, number: int) -> str:
        """One that only this job has."""
        return self._client.upload(encode(random_picture(number, (320, 280)))).id


def request(number: int, pictures: Pictures) -> dict[str, Any]:
    """What `Client.submit` is given for the job of this number: every kind comes round, with every model."""
    kind, turn = number % 13, number // 13
    model = MODELS[turn % 3]
    image = pictures.ids[number % len(pictures.ids)]
    if number % EVERY_LARGE == 0:
        image = pictures.large
    elif number % EVERY_NEW == 0:
        image = pictures.new(number)
    priority = "interactive" if number % 4 == 0 else "batch"
    common = {"priority": priority, "idempotency_key": f"memory-{number}"}
    if kind < len(OCCLUSIONS):
        return _job("occlusion", model, [image], OCCLUSIONS[kind], common)
    if kind == len(OCCLUSIONS):
        return _job("occlusion", model, pictures.ids[:1], {**COARSE, "region": pictures.mask}, common)
    if kind == len(OCCLUSIONS) + 1:
        return _job("occlusion", [model, MODELS[(turn + 1) % 3]], [image], COARSE, common)
    pair = [turn % len(pictures.ids), (turn + 1) % len(pictures.ids)]
    chosen = [pictures.ids[place] for place in pair]
    if kind == len(OCCLUSIONS) + 2:
        params = {"parts": [_middle(pictures.sizes[place]) for place in pair], "layers": ["last"], "random_draws": 1}
        return _job("correspondence", model, chosen, {**params, "permutations": 99}, common)
    family = ("brightness", "rotate", "scale", "flip", "contrast")[turn % 5]
    steps = {} if family == "flip" else {"steps": 3}
    return _job(
        "invariance", model, chosen, {"families": [{"family": family, **steps}], "layers": ["first", "last"]}, common
    )


def _job(
    analysis: str, model: str | list[str], images: list[str], params: dict[str, Any], common: dict[str, Any]
) -> dict[str, Any]:
    return {"analysis": analysis, "model": model, "images": images, "params": params, **common}


def _middle(size: tuple[int, int]) -> dict[str, list[int]]:
    """A part in the picture's middle, [top, left, bottom, right]. size: width, height."""
    width, height = size
    return {"middle": [2 * height // 5, 2 * width // 5, 3 * height // 5, 3 * width // 5]}
