"""Adds ONNX Runtime to the bill of materials of the crates: sbom.py CRATES.json LIBRARY OUT.json

cargo-cyclonedx knows what is linked into the program; the library beside it, loaded at run time,
is the one part of the package that comes another way. Its version is the one that ./dev fetches.
"""

import hashlib
import json
import pathlib
import re
import sys


def main():
    source, library, out = map(pathlib.Path, sys.argv[1:])
    document = json.loads(source.read_text(encoding="utf-8"))
    version = re.search(r"^readonly ORT_VERSION=(\S+)$", pathlib.Path("dev").read_text(encoding="utf-8"), re.M)[1]
    purl = f"pkg:pypi/onnxruntime@{version}"
    document["components"].append(
        {
            "type": "library",
            "bom-ref": purl,
            "name": "onnxruntime",
            "version": version,
            "scope": "required",
            "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(library.read_bytes()).hexdigest()}],
            "licenses": [{"license": {"id": "MIT"}}],
            "purl": purl,
        }
    )
    # What depends on the program depends on it too; the tool's folder is nobody's business.
    root = document["metadata"]["component"]["bom-ref"]
    document["dependencies"].append({"ref": purl})
    for entry in document["dependencies"]:
        if entry["ref"] == root:
            entry.setdefault("dependsOn", []).append(purl)
    out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
