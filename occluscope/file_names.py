"""Names of the files of a job's results: readable, and unique in their folder."""

import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from occluscope.client import Artifact, Job

METRICS: Final = "metrics.json"
PAGE: Final = "index.html"
_MOST_BYTES: Final = 180  # of a name without its ending; file systems allow 255 with it
_DIGITS: Final = 8  # of the hash that distinguishes equal names
_FORBIDDEN: Final = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')  # names and characters that some file system forbids
_SIGNS: Final = re.compile(r"(?<!\w)([-−+])(?=\d)")
_SIGN_NAMES: Final = {"-": " minus ", "−": " minus ", "+": " plus "}


def file_stems(artifacts: Sequence[Artifact], job: Job, names: Mapping[str, str]) -> dict[str, str]:
    """The name without ending of each result's files, by the result's id: ``cat-pixel_map-48-48-tripod``.

    names: of the job's pictures, by id. If names would be equal (also on a file system that ignores case), a few digits
    are added, which depend only on what the result is: its name, picture, model and variant.
    """
    stems = [_stem(one, job, names) for one in artifacts]
    often = Counter(map(_alike, (METRICS, PAGE)))
    for one, stem in zip(artifacts, stems, strict=True):
        often.update(_files(one, stem))
    return {
        one.id: f"{stem}-{_digits(one)}" if any(often[name] > 1 for name in _files(one, stem)) else stem
        for one, stem in zip(artifacts, stems, strict=True)
    }


def file_names(artifact: Artifact, stem: str) -> dict[str, tuple[str, dict[str, int]]]:
    """The names of a result's files, each with the format and the options of its download."""
    files: dict[str, tuple[str, dict[str, int]]] = {f"{stem}.{form}": (form, {}) for form in artifact.formats}
    if artifact.on_picture:
        files[f"{stem}-overlay.png"] = ("png", {"overlay": 1})
    return files


def unique_names(names: Iterable[str]) -> list[str]:
    """The same names, with their positions as numbers if several would be equal."""
    given = list(names)
    often = Counter(map(_alike, given))
    taken = {_alike(name) for name in given}
    unique = []
    for place, name in enumerate(given, start=1):
        numbered = name if often[_alike(name)] == 1 else f"{name}-{place}"
        while numbered != name and _alike(numbered) in taken:
            numbered += f"-{place}"
        taken.add(_alike(numbered))
        unique.append(numbered)
    return unique


def _stem(artifact: Artifact, job: Job, names: Mapping[str, str]) -> str:
    model = artifact.model if len(job.models) > 1 else None
    picture = names.get(artifact.image, artifact.image) if artifact.image else None
    parts = (_allowed(picture or ""), artifact.name, _allowed(model or ""), _words(str(artifact.variant)))
    whole = "-".join(part for part in parts if part)
    if len(whole.encode()) <= _MOST_BYTES:
        return whole
    return f"{whole.encode()[:_MOST_BYTES].decode(errors='ignore')}-{_digits(artifact)}"


def _allowed(name: str) -> str:
    """A given name without the characters that are forbidden in file names."""
    return _FORBIDDEN.sub("-", unicodedata.normalize("NFC", name))


def _words(text: str) -> str:
    """Letters, digits and underscores, with hyphens for everything else: ``48×48 · -5°`` → ``48-48-minus-5``."""
    signed = _SIGNS.sub(lambda sign: _SIGN_NAMES[sign[1]], unicodedata.normalize("NFC", text))
    return "-".join(re.findall(r"\w+", signed))


def _files(artifact: Artifact, stem: str) -> Iterator[str]:
    return map(_alike, file_names(artifact, stem))


def _alike(name: str) -> str:
    """A key that is equal for names that are the same on some file system."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _digits(artifact: Artifact) -> str:
    """Digits of a hash of everything that distinguishes the result from the job's others."""
    which = [artifact.image, artifact.name, artifact.model, artifact.variant.parts]
    return hashlib.sha256(json.dumps(which).encode()).hexdigest()[:_DIGITS]
