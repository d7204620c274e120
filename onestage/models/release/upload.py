"""A model folder to the hub: its own files, and no other that lies there.

What goes is a list of what model folders are made of, so that optimiser states, logs and notes stay. An
adapter's configuration is sent with the base's public name in it: a folder of this machine means nothing
elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from onestage.models.loading import check_files
from onestage.models.model import ORIGIN

FILES = (
    *("config.json", "generation_config.json", "adapter_config.json"),
    *("model*.safetensors", "adapter_model*.safetensors", "preserved.json"),
    *("*.safetensors.index.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "sentencepiece*.model"),
    *("chat_template*", "*.gguf", "LICENSE*", "NOTICE*", "README.md", "configuration_*.py"),
    *("modeling_*.py", "tokenization_*.py", "preprocessor_config.json", "processor_config.json"),
    *("video_preprocessor_config.json", "audio_preprocessor_config.json"),
)
"""What model folders are made of."""
TEMPLATES = "additional_chat_templates"
"""A folder of a tokenizer's other templates."""


class HubError(RuntimeError):
    """The hub did not take a model: what it says."""


@dataclass(frozen=True)
class Parcel:
    """What would be sent."""

    files: list[Path]
    left: list[str]
    """Names of what lies in the folder and stays here."""

    @staticmethod
    def name(file: Path) -> str:
        """A file's place in the model's folder."""
        return f"{TEMPLATES}/{file.name}" if file.parent.name == TEMPLATES else file.name


def parcel_of(folder: Path) -> Parcel:
    """The files of a model folder. Raises `ValueError` where it is none."""
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is no folder: give the model folder that a run left (RUN/model)"
        )
    every = sorted(folder.iterdir())
    files = [f for f in every if f.is_file() and any(fnmatch(f.name, p) for p in FILES)]
    files += sorted((folder / TEMPLATES).glob("*.jinja"))
    if not any(f.name in ("config.json", "adapter_config.json") for f in files):
        raise ValueError(
            f"{folder} is no model folder: it has neither config.json nor adapter_config.json; give the "
            "one that a run left (RUN/model)"
        )
    adapter = (folder / "adapter_config.json").is_file()
    if not any(f.suffix == ".gguf" for f in files):
        check_files(str(folder), "adapter_model" if adapter else "model")
    if not any(f.suffix in (".safetensors", ".gguf") for f in files):
        raise ValueError(
            f"{folder} has weights of older times (*.bin), which are not sent: write them anew "
            f"(onestage export {folder} --out FOLDER) and push that"
        )
    sent = {f.relative_to(folder).parts[0] for f in files}
    return Parcel(files, [f.name for f in every if f.name not in sent])


def base_in(folder: Path) -> str | None:
    """The base that an adapter folder names; None for a whole model."""
    file = folder / "adapter_config.json"
    if not file.is_file():
        return None
    named = json.loads(file.read_text()).get("base_model_name_or_path")
    return str(named) if named else None


def public_base(folder: Path, given: str | None) -> str | None:
    """The base's name as others know it. Raises `ValueError` where an adapter's base is a folder of this
    machine, or one that a run made to start from, which no hub has."""
    named = base_in(folder)
    if given is not None and named is not None and (Path(named) / ORIGIN).is_file():
        raise ValueError(
            f"--base {given}: {folder} was trained on {named}, which a run made to start from (an "
            "earlier adapter merged in, or the text part of a model of images): on another base it is "
            f"another model. Make one of both (onestage merge {folder} --out FOLDER) and push that"
        )
    if given is not None or named is None:
        return given
    if Path(named).exists() or named.startswith((".", "/", "~")) or named.count("/") > 1:
        raise ValueError(
            f"{folder} is an adapter of {named}, a folder that nobody else has: give its hub id with "
            f"--base, or make one model of both (onestage merge {folder} --out FOLDER) and push that"
        )
    return named


def licence_in(folder: str | Path) -> str | None:
    """The licence that the model card in a folder names."""
    file = Path(folder) / "README.md"
    if not file.is_file():
        return None
    parts = file.read_text(encoding="utf-8", errors="replace").split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return None
    try:
        told = yaml.safe_load(parts[1])
    except yaml.YAMLError:
        return None
    found = told.get("license") if isinstance(told, Mapping) else None
    return str(found) if found else None


def check_repository(name: str) -> None:
    """Raise `ValueError` for what is no name on the hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ValueError(f"{name!r} is no name on the hub: write USER/NAME ({error})") from error


def check_access() -> None:
    """Raise `ValueError` where the hub cannot be asked, before anything is read."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ValueError(
            "HF_HUB_OFFLINE is set: unset it to push, or write the card with --card-only"
        )
    if get_token() is None:
        raise ValueError(
            "there is no token for the hub: log in with `hf auth login`, or set HF_TOKEN; --card-only "
            "writes the card without"
        )


def push(parcel: Parcel, repository: str, base: str | None, *, private: bool, message: str) -> str:
    """Send a parcel as one commit, the repository made where it is not there; its address.

    base: the public name that goes into an adapter's configuration. Raises `HubError`.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    operations = [
        CommitOperationAdd(parcel.name(file), _content(file, base) or str(file))
        for file in parcel.files
    ]
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, operations, commit_message=message)
    except (HfHubHTTPError, OSError) as error:
        said = " ".join(str(error).split())[:300]
        raise HubError(
            f"the hub did not take {repository} ({said}); run this again when that is mended"
        ) from error
    return str(address)


def _content(file: Path, base: str | None) -> bytes | None:
    """What is sent in the place of a file; None for the file itself."""
    if file.name != "adapter_config.json" or base is None:
        return None
    told: dict[str, Any] = json.loads(file.read_text())
    return (json.dumps(told | {"base_model_name_or_path": base}, indent=2) + "\n").encode()
