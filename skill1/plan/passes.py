"""The policy's forward and backward passes without weights: their memory, operations and traffic, counted.

The model is built on PyTorch's fake tensors, with which every operator does its shape arithmetic and nothing else. What
is counted is what training calls: weights in the compute dtype (`updates.precision`, FSDP2), TRL's chunked
log-probabilities of the completion tokens alone, LoRA by peft, checkpointing by transformers, generation with
transformers' cache.

Operations are those of torch's FLOP counter. Of torch's other estimators, RuntimeEstimator takes its rates from the GPU
it runs on, which a plan need not have, and MemTracker refuses frozen weights (LoRA) and takes ten times as long; its
peaks of full fine-tuning are the same. Blocks are alike, so a deep model is measured at two depths and extended
linearly: the passes of a 7B model take a second.

The fake device is a CPU: the fused kernels of a GPU (attention, log-probabilities) keep somewhat less.
"""

from __future__ import annotations

import copy
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from transformers import AutoModelForCausalLM, PretrainedConfig
from trl.trainer.utils import add_fused_lm_head

from skill1.plan.machine import Machine

_DEPTHS = (2, 3)  # the smallest at which one more block changes nothing but the number of inner blocks
_IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm}  # of the head's gradients; torch counts the other only


@dataclass(frozen=True, slots=True)
class Weights:
    """What the policy computes with."""

    dtype: torch.dtype
    adapter: LoraConfig | None


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of parameters, tied ones once, and the bytes they take."""

    total: int  # of the base model
    trained: int  # adapters, or all
    bytes: int  # base model and adapters
    largest_block: int  # parameters of the largest decoder layer, adapters included
    outside: int  # parameters outside the layers: embeddings, head, last norm


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass takes."""

    peaks: tuple[float, ...]  # bytes at the worst moments of forward and backward pass, beyond weights and gradients
    cache: float  # bytes of keys and values after it, 0 without
    work: Mapping[tuple[float, float], float]  # (operations, bytes read and written) -> how many operators

    @property
    def peak(self) -> float:
        """Bytes at the worst moment, beyond weights, their gradients and what was there before."""
        return max(self.peaks)

    @property
    def flops(self) -> float:
        return sum(many * flops for (flops, _), many in self.work.items())

    @property
    def operators(self) -> float:
        """How many are issued."""
        return sum(self.work.values())

    def seconds(self, machine: Machine) -> float:
        """Apply the roofline: an operator takes as long as its arithmetic or its traffic, whichever is longer."""
        rate, host = machine.flops * machine.mfu, self.operators * machine.host
        device = sum(many * max(flops / rate, moved / machine.bandwidth) for (flops, moved), many in self.work.items())
        return max(device, host) if machine.overlap else device + host


class Passes:
    """The passes of one architecture with one kind of weights. What was measured is remembered."""

    def __init__(self, architecture: PretrainedConfig, weights: Weights) -> None:
        self._architecture = architecture
        self._weights = weights
        self._measured: dict[tuple[Any, ...], Pass] = {}
        self.parameters = count(build(architecture, weights))

    def update(self, rows: int, prompt: int, completion: int, checkpointing: bool) -> Pass:
        """Count forward and backward of one micro-batch: `rows` rows of `prompt` + `completion` tokens."""
        return self._measure(_update, rows, prompt, completion, checkpointing)

    def score(self, rows: int, prompt: int, completion: int) -> Pass:
        """Count log-probabilities without gradients, as of the reference."""
        return self._measure(_score, rows, prompt, completion)

    def prefill(self, rows: int, prompt: int) -> Pass:
        """Count the first pass of generation, over the prompts."""
        return self._measure(_prefill, rows, prompt)

    def decode(self, rows: int, length: int) -> Pass:
        """Count a later pass of generation, with `length` tokens in the cache, which its peak includes."""
        return self._measure(_decode, rows, length)

    def _measure(self, run: Callable[..., Pass], *shape: int) -> Pass:
        key = (run, *shape)
        if key not in self._measured:
            depth = self._architecture.num_hidden_layers
            if depth > _DEPTHS[-1] and _is_uniform(self._architecture):
                few, more = (self._run(run, layers, shape) for layers in _DEPTHS)
                self._measured[key] = _extended(few, more, depth - _DEPTHS[0])
            else:
                self._measured[key] = self._run(run, depth, shape)
        return self._measured[key]

    def _run(self, run: Callable[..., Pass], layers: int, shape: tuple[int, ...]) -> Pass:
        model = build(_with_depth(self._architecture, layers), self._weights).to(self._weights.dtype)
        with FakeTensorMode():
            return run(_faked(model), *shape)


def _extended(few: Pass, more: Pass, blocks: int) -> Pass:
    """The pass of `blocks` blocks more than `few` has; `more` has one."""

    def linear(a: float, b: float) -> float:
        return a + (b - a) * blocks

    work = {kind: linear(few.work.get(kind, 0), more.work.get(kind, 0)) for kind in {**few.work, **more.work}}
    # each peak grows linearly with depth; their maximum need not
    return Pass(tuple(map(linear, few.peaks, more.peaks)), linear(few.cache, more.cache), work)


def _with_depth(architecture: PretrainedConfig, layers: int) -> PretrainedConfig:
    """The first `layers` blocks of an architecture only."""
    fields: dict[str, Any] = architecture.to_dict() | {"num_hidden_layers": layers}
    if fields.get("layer_types"):
        fields["layer_types"] = fields["layer_types"][:layers]
    return type(architecture).from_dict(fields)


def _is_uniform(architecture: PretrainedConfig) -> bool:
    """Whether all blocks are alike, so that cost grows linearly with depth."""
    return len(set(getattr(architecture, "layer_types", None) or ())) <= 1


def build(architecture: PretrainedConfig, weights: Weights) -> Any:
    """Build the policy on the meta device, as `policy.load_model` and TRL make it: adapters are in float32."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture, dtype=weights.dtype)
        if weights.adapter is not None:
            # a copy: peft writes the layers that it finds in this model, by number, into the configuration
            model = get_peft_model(model, copy.deepcopy(weights.adapter))
    return model


def count(model: Any) -> Parameters:
    """Count the parameters of a policy that `build` made."""
    parameters = dict(model.named_parameters())
    blocks = [sum(p.numel() for p in block.parameters()) for block in _causal(model).base_model.layers]
    return Parameters(
        total=sum(p.numel() for name, p in parameters.items() if "lora_" not in name),
        trained=sum(p.numel() for p in parameters.values() if p.requires_grad),
        bytes=sum(p.nbytes for p in parameters.values()),
        largest_block=max(blocks),
        outside=sum(p.numel() for p in parameters.values()) - sum(blocks),
    )


# -- the passes, on fake tensors ----------------------------------------------------------------------------------


def _faked(model: Any) -> Any:
    """Copy a model with fake tensors of a CPU in the places of the meta ones, and the head that TRL gives it."""

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype)
        return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty

    faked = copy.deepcopy(model, {id(tensor): fake(tensor) for tensor in (*model.parameters(), *model.buffers())})
    add_fused_lm_head(_causal(faked), outputs=("log_probs", "entropy"))  # as TRL's GRPOTrainer asks for
    return faked


def _update(model: Any, rows: int, prompt: int, completion: int, checkpointing: bool) -> Pass:
    if checkpointing:
        _causal(model).activation_checkpointing_enable()
        if _causal(model) is not model:
            model.enable_input_require_grads()
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            # the gradients of earlier micro-batches exist already, and new ones are added to them and released
            parameter.register_post_accumulate_grad_hook(_release)
    with _Counter(model) as counter:
        log_probs = _log_probs(model, rows, prompt, completion)
        counter.begin_backward()
        log_probs.sum().backward()
    return counter.taken()


def _score(model: Any, rows: int, prompt: int, completion: int) -> Pass:
    with torch.no_grad(), _Counter(model) as counter:
        _log_probs(model, rows, prompt, completion)
    return counter.taken()


def _prefill(model: Any, rows: int, prompt: int) -> Pass:
    with torch.no_grad(), _Counter(model) as counter:
        cache = _step(model, rows, prompt, None)
    return counter.taken(cache)


def _decode(model: Any, rows: int, length: int) -> Pass:
    with torch.no_grad():
        cache = _step(model, rows, length, None)
        with _Counter(model, cache) as counter:
            _step(model, rows, 1, cache)
    return counter.taken(cache)


def _log_probs(model: Any, rows: int, prompt: int, completion: int) -> torch.Tensor:
    """(rows, completion), as `RowTrainer` has them scored."""

    def keep_completions(module: nn.Module, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, prompt - 1 : -1]
        return output

    # Rows are packed to the left, so attention needs no mask. On fake tensors transformers would make one all the same,
    # unless it is told by layer type that there is none.
    kinds = getattr(_causal(model).config, "layer_types", None)
    hook = _causal(model).base_model.register_forward_hook(keep_completions)
    ids = torch.zeros(rows, prompt + completion, dtype=torch.long)
    output = model(
        input_ids=ids,
        attention_mask=dict.fromkeys(kinds) if kinds else None,
        shift_labels=ids[:, prompt:],
        fused_lm_head=True,
    )
    hook.remove()
    return output.log_probs


def _step(model: Any, rows: int, tokens: int, cache: Any) -> Any:
    """One call as `generate` makes it, with a mask, for the last token's logits. Returns the cache."""
    seen = cache.get_seq_length() if cache is not None else 0
    model.eval()
    output = model(
        input_ids=torch.zeros(rows, tokens, dtype=torch.long),
        attention_mask=torch.ones(rows, seen + tokens, dtype=torch.long),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.past_key_values


class _Counter(TorchDispatchMode):
    """While entered, follows every storage from the operator that makes it to its release, and all work."""

    def __init__(self, model: Any, cache: Any = None) -> None:
        """The weights' own bytes are left out; those of `cache` count."""
        super().__init__()
        self._live = {t.untyped_storage()._cdata: 0 for t in (*model.parameters(), *model.buffers())}
        self._now = 0
        self._peak = 0
        self._peaks: list[int] = []  # of the passes before
        self._work: Counter[tuple[float, float]] = Counter()
        for tensor in _tensors(cache):
            self._meet(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = _leaves(result)
        for tensor in made:
            self._meet(tensor)
        if func.namespace != "prim":  # of fake tensors alone, which are asked for their device by it
            formula = flop_registry.get(_IN_PLACE.get(func.overloadpacket, func.overloadpacket))
            flops = formula(*args, **kwargs, out_val=result) if formula else 0
            moved = [] if func.is_view else [*_leaves((args, kwargs)), *made]
            self._work[flops, sum(tensor.nbytes for tensor in moved)] += 1
        return result

    def _meet(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage, unless it is counted already, until it is released."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._now += self._live[key]
            self._peak = max(self._peak, self._now)
            weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        self._now -= self._live.pop(key)

    def begin_backward(self) -> None:
        self._peaks.append(self._peak)
        self._peak = self._now

    def taken(self, cache: Any = None) -> Pass:
        return Pass((*self._peaks, self._peak), sum(tensor.nbytes for tensor in _tensors(cache)), self._work)


def _leaves(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def _tensors(cache: Any) -> list[torch.Tensor]:
    return [] if cache is None else [part for layer in cache.layers for part in (layer.keys, layer.values)]


def _release(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _causal(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model
