"""What vLLM's CPU build lacks for training: weights that can be loaded again, and a wire that is not NCCL. For tests only.

`vllm_home` makes a folder that, on PYTHONPATH, has every process of vLLM call `load` as one of its plugins, and gives the
CPU build the name that vLLM's command line asks for. Processes that train call `load` and `connect_trainer` themselves.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "TORCHDYNAMO_DISABLE": "1",  # a sampler is compiled for longer than these tests sample
}
os.environ |= ENVIRONMENT


def vllm_home(folder: Path, python: Path = Path(sys.executable)) -> dict[str, str]:
    """Return the environment of processes that run the vLLM of `python`; `folder` gets what they find there."""
    asked = [str(python), "-c", "from importlib.metadata import version; print(version('vllm-cpu'))"]
    release = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    about = folder / f"vllm-{release}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {release}+cpu\n")
    (about / "entry_points.txt").write_text("[vllm.general_plugins]\nskill1_cpu = vllm_cpu:load\n")
    paths = (folder, Path(__file__).parent, Path(__file__).parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}


def load() -> None:
    """Be vLLM's plugin: keep weights as they were loaded, so that others can be loaded over them, and receive those through a TCP store."""
    import vllm.model_executor.layers.linear
    import vllm.model_executor.layers.utils
    import vllm.model_executor.layers.vocab_parallel_embedding
    from vllm.distributed.weight_transfer import nccl_engine

    layers = vllm.model_executor.layers
    for module in (layers.utils, layers.linear, layers.vocab_parallel_embedding):
        if hasattr(module, "dispatch_cpu_unquantized_gemm"):
            module.dispatch_cpu_unquantized_gemm = _plain_linear
    nccl_engine.worker_init_process_group = lambda info, parallel: _join(info, parallel.rank + info.rank_offset)
    nccl_engine.packed_nccl_broadcast_consumer = _receive


def connect_trainer() -> None:
    """Send weights through a TCP store, and make engines of this process without compilation."""
    import vllm
    from trl.generation import vllm_client, vllm_generation
    from trl.generation.vllm_client import VLLMClient

    init = VLLMClient.init_communicator
    VLLMClient.init_communicator = lambda self, device: init(self, device="cuda")
    vllm_client.open_trainer_endpoint = partial(_join, rank=0)
    vllm_client.packed_nccl_broadcast_producer = _send
    vllm_generation.LLM = partial(vllm.LLM, enforce_eager=True)


def _plain_linear(layer: torch.nn.Module, remove_weight: bool) -> None:
    layer.cpu_linear = torch.nn.functional.linear


def _join(info: Any, rank: int) -> Any:
    from vllm.distributed.utils import StatelessProcessGroup

    given = info if isinstance(info, dict) else vars(info)
    place = {"host": given["master_address"], "port": given["master_port"], "world_size": given["world_size"]}
    return SimpleNamespace(group=StatelessProcessGroup.create(rank=rank, **place))


def _send(iterator, group, src, post_iter_func, **sizes) -> None:
    for item in iterator:
        group.group.broadcast_obj(post_iter_func(item).detach().cpu(), src)


def _receive(iterator, group, src, post_unpack_func, **sizes) -> None:
    for name, _ in iterator:
        post_unpack_func([(name, group.group.broadcast_obj(None, src))])
