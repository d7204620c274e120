"""docs/format-rows.md, of the rows that the tests convert: `python tests/support/format_rows.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.shapes import OURS, SHAPES

PAGE = Path(__file__).parents[2] / "docs" / "format-rows.md"
HEAD = """# A row of each format

What rows look like in each of the [formats](formats.md), and what they become. They are those of the
tests: short texts in the shape that is published. Of a file of any of them:

```
onestage check mine.jsonl                  # says whose rows they are, and what to type
onestage convert mine.jsonl rows.jsonl     # what stands under "becomes", with an id: file and place
onestage train rows.jsonl --model Qwen/Qwen3-0.6B
```

Where two formats could be meant, `--from` names the one in brackets. Ratings whose range a row does not
say are told it: `--score-range 1,5`.

## Converted
"""
AS_THEY_ARE = """
## Read as they are

No conversion: `onestage check mine.jsonl`, then `onestage train mine.jsonl --model MODEL`.
"""


def block(*rows: Mapping[str, Any]) -> str:
    return "```json\n" + "\n".join(map(shown, rows)) + "\n```\n"


def shown(row: Mapping[str, Any]) -> str:
    """A row, a column a line where it is long."""
    short = json.dumps(row, ensure_ascii=False)
    if len(short) <= 100:
        return short
    columns = (f"  {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in row.items())
    return "{\n" + ",\n".join(columns) + "\n}"


def page() -> str:
    parts = [HEAD]
    for name, shape in SHAPES.items():
        parts.append(f"### {name} (`{shape.form}`)\n\n{block(shape.row)}")
        parts.append(f"becomes\n\n{block(*shape.becomes)}")
    parts.append(AS_THEY_ARE)
    parts += [f"### {name[0].upper()}{name[1:]}\n\n{block(row)}" for name, row in OURS.items()]
    return "\n".join(parts).replace("\n\n\n", "\n\n")


if __name__ == "__main__":
    PAGE.write_text(page())
