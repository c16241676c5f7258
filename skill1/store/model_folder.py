"""A model as a folder of its own, as AutoModelForCausalLM and AutoTokenizer load it: whole, or not there at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from peft import PeftModel
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.tokenization_utils_base import TOKENIZER_CONFIG_FILE

from skill1.store.run_directory import RunError


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill that becomes `out` when all is well, or never was.

    Raises:
        RunError: `out` cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as place:
            made = Path(place) / "made"  # in it, to get the permissions of a folder made by hand
            made.mkdir()
            yield made
            os.rename(made, out)
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror or error}") from error


def merge_adapter(base: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Fold the adapter of a folder into a model's weights, which keep their precision."""
    dtype = base.dtype
    # float32 first: a sum of base and adapter in bfloat16 would lose most of a small adapter
    return PeftModel.from_pretrained(base.float(), adapter).merge_and_unload().to(dtype)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a model and its tokenizer such that AutoTokenizer loads the tokenizer that was saved.

    For some architectures, Qwen2 among them, transformers distrusts the class that a folder declares and builds the
    architecture's own, without a warning. A folder that names remote code it believes, with the remote code left alone.

    Raises:
        RunError: AutoTokenizer loads another one all the same.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if type(AutoTokenizer.from_pretrained(folder)) is type(tokenizer):
        return
    file = folder / TOKENIZER_CONFIG_FILE
    declared = json.loads(file.read_text()) | {"auto_map": {"AutoTokenizer": [None, None]}}
    file.write_text(json.dumps(declared, indent=2) + "\n")
    if type(found := AutoTokenizer.from_pretrained(folder)) is not type(tokenizer):
        raise RunError(f"AutoTokenizer reads the tokenizer as {type(found).__name__}, it is {type(tokenizer).__name__}")
