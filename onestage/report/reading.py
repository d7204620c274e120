"""Reading what may be missing, cut off or damaged: it is told, and the rest goes on."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from onestage.runfolder import json_lines


@dataclass(frozen=True)
class Trouble:
    """Something that a reader of the report must know."""

    where: str
    what: str


@dataclass
class Reader:
    """Reads files; what it could not read is in `troubles`."""

    troubles: list[Trouble] = field(default_factory=list)

    def tell(self, where: str, what: str) -> None:
        self.troubles.append(Trouble(where, what))

    def json(self, file: Path, where: str, *, kind: type = dict, needed: bool = False) -> Any:
        """The content, or None. `needed`: tell if the file is missing, too."""
        text = self.text(file, where, needed=needed)
        if text is None:
            return None
        try:
            content = json.loads(text)
        except ValueError as error:
            self.tell(where, f"{file.name} is damaged ({error})")
            return None
        if not isinstance(content, kind):
            self.tell(where, f"{file.name} is damaged (not a JSON {NAMES[kind]})")
            return None
        return content

    def text(self, file: Path, where: str, *, needed: bool = False) -> str | None:
        try:
            return file.read_text(encoding="utf-8")
        except FileNotFoundError:
            if needed:
                self.tell(where, f"{file.name} is missing")
        except (OSError, UnicodeDecodeError) as error:
            self.tell(where, f"{file.name} cannot be read ({error})")
        return None

    def yaml(self, file: Path, where: str) -> tuple[dict[str, Any], str]:
        """A recipe's content (empty if it cannot be read) and its text."""
        text = self.text(file, where)
        if text is None:
            return {}, ""
        try:
            content = yaml.safe_load(text)
        except yaml.YAMLError as error:
            self.tell(where, f"{file.name} is damaged ({str(error).splitlines()[0]})")
            return {}, text
        return (content if isinstance(content, dict) else {}), text

    def table(self, file: Path, where: str) -> list[dict[str, Any]]:
        """The rows of a .csv file; none where it is missing."""
        text = self.text(file, where) or ""
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            self.tell(where, f"{file.name} is damaged ({error})")
            return []

    def lines(self, file: Path, where: str, *, needed: bool = False) -> list[dict[str, Any]]:
        """The lines of a .jsonl file that can be read."""
        try:
            found, bad = json_lines(file)
        except FileNotFoundError:
            if needed:
                self.tell(where, f"{file.name} is missing")
            return []
        except OSError as error:
            self.tell(where, f"{file.name} cannot be read ({error})")
            return []
        if bad:
            self.tell(where, f"{bad} of {bad + len(found)} lines of {file.name} cannot be read")
        return found


NAMES: dict[type, str] = {dict: "object", list: "list"}


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number (true and false are none)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number_of(given: str | float | None) -> float | None:
    """A finite number out of a table's cell."""
    try:
        value = float("" if given is None else given)
    except ValueError:
        return None
    return value if is_number(value) else None


def value_of(told: Any) -> Any:
    """A value of an axis, as a study's tables have it."""
    try:
        return json.loads(told) if isinstance(told, str) else told
    except ValueError:
        return told


def texts(value: object) -> list[str]:
    """A list of texts out of whatever stands there."""
    return [str(item) for item in value] if isinstance(value, list) else []


def mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
