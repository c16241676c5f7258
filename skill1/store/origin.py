"""Which weights a run began from: known by what they hold, whatever the folder is called and wherever it is."""

from __future__ import annotations

import hashlib
from pathlib import Path

from skill1.errors import RunError
from skill1.store.resources import find_adapter, find_model

_WEIGHTS = ("*.safetensors", "*.bin")


def weights_hash(model: str, adapter: str | None = None, revision: str | None = None) -> str | None:
    """Hash the weights in the folders of a model and its adapter (SHA-256); of a hub id alone return the commit.

    Args:
        revision: of a hub id, None = the newest.

    Returns:
        None for a hub id alone that was not loaded yet.

    Raises:
        ConfigError: see `resources.find_model` and `resources.find_adapter`.
    """
    folders = [Path(find_model(model)), *([find_adapter(adapter)] if adapter else [])]
    commit = None if folders[0].is_dir() else _commit(model, revision)
    if not any(folder.is_dir() for folder in folders):
        return commit
    digest = hashlib.sha256((commit or "").encode())
    for path in (path for folder in folders for path in sorted(p for kind in _WEIGHTS for p in folder.glob(kind))):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def check_origin(recorded: str | None, found: str | None, what: Path, model: str) -> None:
    """Raise RunError if the weights of `model` are not those that `what` records; a record of None says nothing."""
    if recorded not in (None, found):
        raise RunError(
            f"{what} was started from other weights than {model} holds (hash {recorded}, now {found}): restore them"
        )


def _commit(model: str, revision: str | None) -> str | None:
    """The commit of a hub id that the local cache holds."""
    from huggingface_hub import try_to_load_from_cache  # not at the top: readers of runs need not wait for it

    found = try_to_load_from_cache(model, "config.json", revision=revision)
    return Path(found).parent.name if isinstance(found, str) else None
