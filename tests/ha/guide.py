"""What docs/guide/home-assistant.md shows for use is used here: a block below `<!-- tried: NAME -->`."""

import re

BLOCK = re.compile(r"^<!-- tried: (?P<name>[a-z_]+) -->\n+```[a-z]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "<!-- tried:"


def blocks(path):
    """Name -> text of every block that is tried."""
    with open(path, encoding="utf-8") as file:
        page = file.read()
    found = {match["name"]: match["text"] for match in BLOCK.finditer(page)}
    # A mark that is followed by no block would leave that block untried.
    if len(found) != page.count(MARK):
        raise SystemExit(f"{path}: {page.count(MARK)} marks, but {len(found)} blocks with names of their own")
    untried = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if block not in found.values()]
    if untried:
        raise SystemExit(f"{path}: YAML without a mark `{MARK} NAME -->`:\n{untried[0]}")
    return found
