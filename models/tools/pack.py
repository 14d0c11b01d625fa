"""What `models/manifest.toml` says about each file, and where files are looked for.

The manifest is the only list of names, hashes and shapes; the tools repeat none of them.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from problems import Problem

MANIFEST = Path(__file__).resolve().parent.parent / "manifest.toml"


@dataclass(frozen=True)
class Input:
    """The network's input; `mean` and `std` belong to pixels of 0..255 and may be absent."""

    name: str
    shape: tuple[int, ...]
    order: str | None
    mean: np.ndarray | None
    std: np.ndarray | None

    @property
    def channels_last(self) -> bool:
        """Whether a picture goes in as rows, columns, channels."""
        return len(self.shape) == 4 and self.shape[3] == 3


@dataclass(frozen=True)
class Entry:
    """One model of the manifest."""

    name: str
    file: str
    sha256: str
    alternates: tuple[str, ...]
    source_file: str | None
    source_sha256: str | None
    input: Input
    outputs: tuple[str, ...]
    embedding: dict[str, Any] | None
    confidence_min: float | None


def entry(name: str) -> Entry:
    """The model of that name."""
    models = tomllib.loads(MANIFEST.read_text(encoding="utf-8"))["model"]
    if name not in models:
        raise Problem(f"{MANIFEST} has no model `{name}`; it has: {', '.join(sorted(models))}")
    model = models[name]
    source = model.get("source", {})
    return Entry(
        name=name,
        file=model["file"],
        sha256=model["sha256"],
        alternates=tuple(other["sha256"] for other in model.get("alternate", [])),
        source_file=source.get("file"),
        source_sha256=source.get("sha256"),
        input=_input(model["input"]),
        outputs=tuple(model["outputs"]),
        embedding=model.get("embedding"),
        confidence_min=model.get("detector", {}).get("confidence_min"),
    )


def _input(given: dict[str, Any]) -> Input:
    def triple(key: str) -> np.ndarray | None:
        return np.array(given[key], np.float32) if key in given else None

    shape = tuple(given["shape"])
    return Input(given["name"], shape, given.get("order"), triple("mean"), triple("std"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def upstream_file(model: Entry, folder: Path) -> Path:
    """The file that the model is made of, after its hash is checked."""
    if model.source_file is None:
        raise Problem(f"the manifest names no upstream file for `{model.name}`")
    path = folder / model.source_file
    if not path.is_file():
        raise Problem(
            f"{path} is missing: fetch {model.source_file} from the address in {MANIFEST} "
            f"([model.{model.name}], `source`) and put it into {folder}"
        )
    found = sha256_of(path)
    if found != model.source_sha256:
        raise Problem(
            f"{path} is another file than the one this model is made of: SHA-256 {found}, "
            f"the manifest says {model.source_sha256}"
        )
    return path


def pack_file(model: Entry, folder: Path) -> Path:
    """The model's file under `folder`: as the manifest names it, or directly in the folder."""
    places = [folder / model.file, folder / Path(model.file).name]
    for place in places:
        if place.is_file():
            return place
    raise Problem(f"`{model.name}` is missing: neither {places[0]} nor {places[1]} exists")
