"""Answers kept line by line: an evaluation that was interrupted goes on behind the last of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from onestage.runfolder import json_line, json_lines
from onestage.runfolder.disk import writing


class Kept:
    """Answers of one model to the items of one suite, in memory and, where there is a file, on disk.

    A line of the file is `{"id": ..., "answer": ...}`. One that was cut off (by a kill) is asked again.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file
        self.damaged = 0
        """Lines that could not be read."""
        self._known: dict[str, Mapping[str, Any]] = {}
        if file is not None and file.is_file():
            lines, self.damaged = json_lines(file)
            for line in lines:
                if isinstance(line.get("id"), str) and isinstance(line.get("answer"), Mapping):
                    self._known[line["id"]] = line["answer"]
                else:
                    self.damaged += 1

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def __getitem__(self, id: str) -> Mapping[str, Any]:
        return self._known[id]

    def __len__(self) -> int:
        return len(self._known)

    def add(self, answers: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Some more, onto the disk before this returns."""
        answers = list(answers)
        self._known.update(answers)
        if self.file is None:
            return
        text = "".join(json_line({"id": id, "answer": answer}) for id, answer in answers)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.file), self.file.open("ab") as opened:
            # Behind a line that was cut off, the next one must not be lost with it.
            if opened.tell() and not _ends_a_line(self.file):
                text = "\n" + text
            opened.write(text.encode("utf-8", "backslashreplace"))
            opened.flush()
            os.fsync(opened.fileno())

    def drop(self) -> None:
        """Once what is kept stands elsewhere, or is wanted no more."""
        if self.file is not None:
            self.file.unlink(missing_ok=True)


def _ends_a_line(file: Path) -> bool:
    with file.open("rb") as opened:
        opened.seek(-1, os.SEEK_END)
        return opened.read(1) == b"\n"
