"""Lays out the package facelatch-models-standard: models.py MODELS-DIR STAGE

Every file is compared with models/manifest.toml first, by size and SHA-256, the alternates too, as
the daemon does; a pack that is not all there makes no package. What each file is, where it comes
from and its licence go along as the package's copyright file.
"""

import gzip
import hashlib
import pathlib
import shutil
import sys
import tomllib

PACK = "standard"
EMBEDDED = "builtin/"
NAME = f"facelatch-models-{PACK}"
PLACE = "usr/share/facelatch/models"
OVERRIDES = f"""# The project has no mail address of its own.
{NAME}: bogus-mail-host Maintainer *
{NAME}: bogus-mail-host-in-debian-changelog *
"""


def models_of(manifest):
    """The models of the pack that are files, by name; the others are inside the program."""
    pack = manifest["pack"][PACK]
    names = [pack["detector"], *pack["embeddings"], *pack["pad"], pack["face_state"], *pack["mesh"].values()]
    models = {name: manifest["model"][name] for name in names}
    return {name: model for name, model in models.items() if not model["file"].startswith(EMBEDDED)}


def check(path, model):
    """Why a file is not what the manifest says, or None."""
    if not path.is_file():
        return "missing"
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    accepted = [model["sha256"], *(alternate["sha256"] for alternate in model.get("alternate", []))]
    return None if sha256 in accepted else f"another file, SHA-256 {sha256}"


def copyright_text(manifest, models):
    lines = [
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/",
        f"Upstream-Name: {NAME}",
        f"Comment: {manifest['pack'][PACK]['licence']}",
        " None of them was trained by this project; each is the work of its authors:",
    ]
    for name, model in models.items():
        upstream = model["upstream"]
        lines.append(f" .\n {name}: {model['licence']}")
        lines.append(f" {upstream['repository']} {upstream.get('path', '')} {upstream.get('commit', '')}".rstrip())
        if "made_by" in model:
            lines.append(f" {model['made_by']}")
    for model in models.values():
        lines += ["", f"Files: {PLACE}/{model['file']}"]
        lines += [f"Copyright: the authors of {model['upstream']['repository']}", "License: Apache-2.0"]
    lines += ["", "License: Apache-2.0", " On Debian systems the text is in /usr/share/common-licenses/Apache-2.0."]
    return "\n".join(lines) + "\n"


def control(version, maintainer, stage):
    kilobytes = sum((path.stat().st_size + 1023) // 1024 for path in stage.rglob("*") if path.is_file())
    return (
        f"Package: {NAME}\nVersion: {version}\nArchitecture: all\nMaintainer: {maintainer}\n"
        f"Installed-Size: {kilobytes}\nEnhances: facelatch\nSection: misc\nPriority: optional\n"
        "Description: models of facelatch for a door: detection, embedding, liveness\n"
        " The pack `standard` of the face recognition daemon facelatch: a detector, three\n"
        " embeddings, two networks against presentation attacks and a face mesh. A daemon\n"
        " that runs is restarted with it, instead of the small models that it carries\n"
        " itself, whose liveness check is weaker.\n"
    )


def main():
    source, stage = map(pathlib.Path, sys.argv[1:])
    manifest = tomllib.loads(pathlib.Path("models/manifest.toml").read_text(encoding="utf-8"))
    cargo = tomllib.loads(pathlib.Path("Cargo.toml").read_text(encoding="utf-8"))["package"]
    models = models_of(manifest)
    not_apache = [name for name, model in models.items() if not model["licence"].startswith("Apache-2.0")]
    if not_apache:
        sys.exit(f"error: the copyright file knows Apache-2.0 only: {', '.join(not_apache)}")
    problems = [(model["file"], check(source / model["file"], model)) for model in models.values()]
    if any(problem for _, problem in problems):
        sys.exit("error: the pack is not complete\n" + "\n".join(f"  {source / file}: {what}" for file, what in problems if what))
    for model in models.values():
        place = stage / PLACE / model["file"]
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / model["file"], place)
    documents = stage / "usr/share/doc" / NAME
    documents.mkdir(parents=True)
    (documents / "copyright").write_text(copyright_text(manifest, models), encoding="utf-8")
    overrides = stage / "usr/share/lintian/overrides"
    overrides.mkdir(parents=True)
    (overrides / NAME).write_text(OVERRIDES, encoding="utf-8")
    changelog = pathlib.Path("cross/debian/changelog").read_bytes().replace(b"facelatch (", NAME.encode() + b" (")
    (documents / "changelog.Debian.gz").write_bytes(gzip.compress(changelog, 9, mtime=0))
    (stage / "DEBIAN").mkdir()
    text = control(cargo["version"] + "-1", cargo["metadata"]["deb"]["maintainer"], stage)
    (stage / "DEBIAN/control").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
