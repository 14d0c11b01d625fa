"""The licence texts of every crate that is linked into the binary, each text once.

Permissive licences want their text and the names of the authors to go with the program. They lie in
the sources that cargo has fetched already, so this needs no network:
    python3 cross/licences.py > licences-of-crates.txt
"""

import hashlib
import json
import pathlib
import re
import subprocess
import sys

TARGETS = ["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"]
LICENCE_FILE = re.compile(r"(?i)^(licen[cs]e|copying|copyright|notice|unlicense)([-_.].*)?$")


def linked_crates():
    """Crates reached from the program by normal dependencies, for one of the targets."""
    crates = {}
    for target in TARGETS:
        command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
        metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
        root = metadata["resolve"]["root"]
        waiting = [root]
        seen = {root}
        while waiting:
            for dependency in nodes[waiting.pop()]["deps"]:
                normal = any(kind["kind"] is None for kind in dependency["dep_kinds"])
                if normal and dependency["pkg"] not in seen:
                    seen.add(dependency["pkg"])
                    waiting.append(dependency["pkg"])
        for identity in seen - {root}:
            package = packages[identity]
            crates[(package["name"], package["version"])] = package
    return [crates[key] for key in sorted(crates)]


def licence_texts(package):
    folder = pathlib.Path(package["manifest_path"]).parent
    files = sorted(path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in files]


def main():
    texts = {}
    crates = linked_crates()
    print("Crates that are linked into facelatch, with their licences and, below, the texts.\n")
    for package in crates:
        numbers = []
        for text in licence_texts(package):
            # Texts that differ in line breaks only are one.
            key = hashlib.sha256(" ".join(text.split()).encode()).hexdigest()
            texts.setdefault(key, (len(texts) + 1, text))
            numbers.append(str(texts[key][0]))
        licence = package["license"] or "see the text"
        where = f"texts {', '.join(numbers)}" if numbers else f"by {', '.join(package['authors']) or 'its contributors'}"
        print(f"{package['name']} {package['version']}: {licence}; {where}; {package['repository'] or ''}".rstrip("; "))
    for number, text in texts.values():
        print(f"\n{'=' * 100}\nText {number}\n\n{text}")
    print(f"\n{'=' * 100}\nCrates named above without a text carry none in their sources. They are under the licence that they")
    print("name, by the authors that they name: the texts of MIT and Apache-2.0 are among those above. The Rust")
    print("standard library, MIT OR Apache-2.0, by the Rust Project's contributors, is linked as well.")
    if not texts:
        sys.exit("no licence text was found: are the sources of the crates there?")


if __name__ == "__main__":
    main()
