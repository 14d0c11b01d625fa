"""Prints what Home Assistant would install while it runs, for the integrations of configuration.yaml.

Installed beforehand, so that a run needs no network. Runs with Home Assistant's Python.
"""

import ast
import json
import pathlib

import homeassistant

WANTED = ["mqtt", "api", "config", "template", "persistent_notification", "event", "lock", "image", "isal"]

package = pathlib.Path(homeassistant.__file__).parent
# Read, not imported: importing the module needs what is to be installed.
tree = ast.parse((package / "bootstrap.py").read_text(encoding="utf-8"))
by_default = next(ast.literal_eval(node.value) for node in tree.body
                  if isinstance(node, ast.Assign) and node.targets[0].id == "DEFAULT_INTEGRATIONS")
todo, seen = WANTED + sorted(by_default), set()
while todo:
    name = todo.pop()
    manifest = package / "components" / name / "manifest.json"
    if name in seen or not manifest.exists():
        continue
    seen.add(name)
    content = json.loads(manifest.read_text(encoding="utf-8"))
    print("\n".join(content.get("requirements", [])))
    todo += content.get("dependencies", [])
