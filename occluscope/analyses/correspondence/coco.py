"""Parts from annotations in COCO's format: squares around keypoints, or boxes by category."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

Box = list[int]  # top, left, bottom, right; pixels of the picture


def parts_from_coco(annotations: dict[str, Any], files: Sequence[str], share: float = 0.2) -> list[dict[str, Box]]:
    """The parameter `parts` for pictures, in the order of `files` (file names as in the annotations, without folders).

    If a picture has annotations with keypoints, the largest of them is used: each labelled keypoint becomes a square
    around it, with a side of `share` times the longer side of the annotation's box. Without keypoints every box is a
    part, named by its category and numbered if there are several. Boxes are cut at the picture's edges.

    Raises
    ------
    ValueError
        The annotations are not a COCO document, or have no entry or no part for a file.
    """
    try:
        pictures = {picture["file_name"].rsplit("/", 1)[-1]: picture for picture in annotations["images"]}
        categories = {category["id"]: category for category in annotations["categories"]}
        of_picture: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in annotations["annotations"]:
            of_picture[annotation["image_id"]].append(annotation)
        found = []
        for file in files:
            picture = pictures.get(file.rsplit("/", 1)[-1])
            if picture is None:
                raise ValueError(f"the annotations do not know {file}")
            own = of_picture.get(picture["id"], [])
            parts = _keypoint_parts(own, categories, share) or _category_parts(own, categories)
            if not parts:
                raise ValueError(f"the annotations have no keypoint and no box in {file}")
            found.append({name: _inside(box, picture) for name, box in parts.items()})
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"this is no document in COCO's format: {type(error).__name__} at {error}") from None
    return found


def _keypoint_parts(
    annotations: list[dict[str, Any]], categories: dict[Any, dict[str, Any]], share: float
) -> dict[str, tuple[float, float, float, float]]:
    with_points = [one for one in annotations if any(one.get("keypoints", [])[2::3])]
    if not with_points:
        return {}
    largest = max(with_points, key=lambda one: one["bbox"][2] * one["bbox"][3])
    names = categories[largest["category_id"]]["keypoints"]
    half = share * max(largest["bbox"][2:]) / 2
    points = zip(names, *(largest["keypoints"][start::3] for start in range(3)), strict=True)
    return {str(name): (y - half, x - half, y + half, x + half) for name, x, y, visibility in points if visibility}


def _category_parts(
    annotations: list[dict[str, Any]], categories: dict[Any, dict[str, Any]]
) -> dict[str, tuple[float, float, float, float]]:
    """Boxes by name: the category's name for the first of a category, with a number that makes it unique for others."""
    parts: dict[str, tuple[float, float, float, float]] = {}
    names = [str(categories[one["category_id"]]["name"]) for one in annotations]
    known, last_number = set(names), dict.fromkeys(names, 1)
    for one, category in zip(annotations, names, strict=True):
        x, y, width, height = one["bbox"]
        name = category
        while name in parts or (name != category and name in known):
            last_number[category] += 1
            name = f"{category} {last_number[category]}"
        parts[name] = (y, x, y + height, x + width)
    return parts


def _inside(box: tuple[float, float, float, float], picture: dict[str, Any]) -> Box:
    """The box in whole pixels inside the picture, at least one pixel high and wide."""
    height, width = int(picture["height"]), int(picture["width"])
    top, left = min(max(round(box[0]), 0), height - 1), min(max(round(box[1]), 0), width - 1)
    return [top, left, min(max(round(box[2]), top + 1), height), min(max(round(box[3]), left + 1), width)]
