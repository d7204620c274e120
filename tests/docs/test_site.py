"""The site builds without a warning: all pages have a place in it, links and anchors lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from support.tiny import ROOT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    told = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=told)
    assert done.returncode == 0, done.stderr[-3000:]
    home = (tmp_path / "index.html").read_text()
    assert "<h1" in home
    assert "one stage" in home
    loss = (tmp_path / "reference.html").read_text()
    assert "onestage.training.train.train" in loss  # read off the code
    assert (tmp_path / "files" / "recipes" / "llama3_8b_lora.yaml").is_file()
    # Nothing is loaded from elsewhere: the pages open offline.
    assert not re.findall(r'<script[^>]* src="?https?:', home)
    assert not re.findall(r"<link[^>]*stylesheet[^>]*https?:", home)
