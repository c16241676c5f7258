"""The policy's forward and backward passes without weights: their memory, operations and traffic, counted exactly.

The model is built from its configuration on the meta device and run on PyTorch's fake tensors (meta tensors that answer
as if they were on a device): every operator does its shape arithmetic and nothing else. What is counted is what
training calls: autocast as accelerate applies it, TRL's chunked log-probabilities of the completion tokens alone, LoRA
by peft, checkpointing by transformers, generation with transformers' cache.

Blocks are alike, so a deep model is measured at two depths and extended linearly (`Extended`): the passes of a 7B model
take a second, and a test compares them with the whole depth.

The fake device is a CPU: the fused kernels of a GPU (attention, log-probabilities) keep somewhat less.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from skill1.plan.architectures import is_uniform, with_depth

_DEPTHS = (2, 3)  # the smallest at which one more block changes nothing but the number of inner blocks
_IN_PLACE = {torch.ops.aten.addmm_: torch.ops.aten.addmm}  # of the head's gradients; torch counts the other only
_OUTPUTS = ("log_probs", "entropy")  # as TRL's GRPOTrainer asks for


@dataclass(frozen=True, slots=True)
class Weights:
    """How the policy's weights are held while it computes."""

    held: torch.dtype  # base weights, as the operators see them
    compute: torch.dtype  # autocast
    adapter: LoraConfig | None


@dataclass(frozen=True, slots=True)
class Parameters:
    """Numbers of parameters, tied ones once, and the bytes they take."""

    total: int  # of the base model
    trained: int  # adapters, or all
    bytes: int  # base model and adapters
    trained_bytes: int
    largest_block: int  # parameters of the largest decoder layer, adapters included
    outside: int  # parameters outside the layers: embeddings, head, last norm


@dataclass(frozen=True, slots=True)
class Speed:
    """What a device reaches in practice."""

    flops: float  # operations of matrix products a second
    bandwidth: float  # bytes read or written a second
    host: float  # seconds to issue an operator
    overlap: bool  # operators are issued while earlier ones run (a GPU)


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass, counted. Bytes are those beyond weights, their gradients and what was there before."""

    forward_peak: int
    backward_peak: int  # 0 without a backward pass
    head_peak: int  # of the log-probabilities and the head's gradient, beyond what the blocks hold; 0 if not counted
    cache: int  # keys and values, 0 without
    flops: np.ndarray  # (operators,) float64
    traffic: np.ndarray  # (operators,) float64, bytes read and written


@dataclass(frozen=True, slots=True, eq=False)
class Extended:
    """A trace of the whole depth, or two of small depths whose difference is one block."""

    traces: tuple[Trace, ...]
    depth: int

    def _linear(self, value: Callable[[Trace], float]) -> float:
        first = value(self.traces[0])
        if len(self.traces) == 1:
            return first
        return first + (value(self.traces[1]) - first) * (self.depth - _DEPTHS[0])

    @property
    def peak(self) -> float:
        """Bytes at the worst moment, beyond weights, their gradients and what was there before."""
        # either peak grows linearly with depth; their maximum need not
        return max(self._linear(lambda t: t.forward_peak), self._linear(lambda t: t.backward_peak))

    @property
    def head(self) -> float:
        """Bytes at the worst moment of log-probabilities and head alone, beyond what the blocks hold then."""
        return self._linear(lambda t: t.head_peak)

    @property
    def cache(self) -> float:
        """Bytes of the keys and values after the pass."""
        return self._linear(lambda t: t.cache)

    @property
    def flops(self) -> float:
        return self._linear(lambda t: float(t.flops.sum()))

    @property
    def operators(self) -> float:
        """How many are issued."""
        return self._linear(lambda t: len(t.flops))

    def seconds(self, speed: Speed) -> float:
        """The roofline: an operator takes as long as its arithmetic or its traffic, whichever is longer."""
        device = self._linear(lambda t: float(np.maximum(t.flops / speed.flops, t.traffic / speed.bandwidth).sum()))
        host = self.operators * speed.host
        return max(device, host) if speed.overlap else device + host


class Graph:
    """The passes of one architecture whose weights are held in one way. What was measured is remembered."""

    def __init__(self, architecture: PretrainedConfig, weights: Weights) -> None:
        self._architecture = architecture
        self._weights = weights
        self._measured: dict[tuple[Any, ...], Extended] = {}
        self._parameters: Parameters | None = None
        self._writer: Graph | None = None

    @property
    def parameters(self) -> Parameters:
        if self._parameters is None:
            self._parameters = count(build(self._architecture, self._weights))
        return self._parameters

    @property
    def writer(self) -> Graph:
        """The passes of generation, whose weights are held in the compute dtype (`generation.weights`)."""
        if self._weights.held == self._weights.compute:
            return self
        if self._writer is None:
            self._writer = Graph(self._architecture, replace(self._weights, held=self._weights.compute))
        return self._writer

    def update(self, rows: int, prompt: int, completion: int, checkpointing: bool) -> Extended:
        """Forward and backward of one micro-batch: `rows` rows of `prompt` + `completion` tokens."""
        return self._measure(_update, rows, prompt, completion, checkpointing)

    def score(self, rows: int, prompt: int, completion: int) -> Extended:
        """Log-probabilities without gradients, as of the reference."""
        return self._measure(_score, rows, prompt, completion)

    def prefill(self, rows: int, prompt: int) -> Extended:
        """The first pass of generation, over the prompts."""
        return self._measure(_prefill, rows, prompt)

    def decode(self, rows: int, length: int) -> Extended:
        """A later pass of generation, with `length` tokens in the cache, which its peak includes."""
        return self._measure(_decode, rows, length)

    def _measure(self, run: Callable[..., Trace], *shape: int) -> Extended:
        key = (run, *shape)
        if key not in self._measured:
            depth = self._architecture.num_hidden_layers
            short = is_uniform(self._architecture) and depth > _DEPTHS[-1]
            traces = []
            for layers in _DEPTHS if short else (depth,):
                model = build(with_depth(self._architecture, layers), self._weights)
                with FakeTensorMode():
                    _fake(model)
                    traces.append(run(model, self._weights.compute, *shape))
            self._measured[key] = Extended(tuple(traces), depth)
        return self._measured[key]


def build(architecture: PretrainedConfig, weights: Weights) -> nn.Module:
    """The policy on the meta device, as `policy.load_model` and TRL make it: head patched, adapters in float32."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architecture, dtype=weights.held)
        add_fused_lm_head(model, outputs=_OUTPUTS)
        if weights.adapter is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name of yesterday
                model = get_peft_model(model, weights.adapter)
    return model


def count(model: nn.Module) -> Parameters:
    """The parameters of a policy that `build` made."""
    parameters = dict(model.named_parameters())
    trained = [p for p in parameters.values() if p.requires_grad]
    blocks = [sum(p.numel() for p in block.parameters()) for block in _causal(model).base_model.layers]
    return Parameters(
        total=sum(p.numel() for name, p in parameters.items() if "lora_" not in name),
        trained=sum(p.numel() for p in trained),
        bytes=sum(map(_nbytes, parameters.values())),
        trained_bytes=sum(map(_nbytes, trained)),
        largest_block=max(blocks),
        outside=sum(p.numel() for p in parameters.values()) - sum(blocks),
    )


# -- the passes, on fake tensors ----------------------------------------------------------------------------------


def _update(
    model: nn.Module, compute: torch.dtype, rows: int, prompt: int, completion: int, checkpointing: bool
) -> Trace:
    if checkpointing:
        _causal(model).activation_checkpointing_enable()
        if _causal(model) is not model:
            model.enable_input_require_grads()
    model.train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            # the gradients of earlier micro-batches exist already, and new ones are added to them and released
            parameter.register_post_accumulate_grad_hook(_release)
    counter = _Counter(model)
    with counter:
        log_probs = _log_probs(model, compute, rows, prompt, completion, counter.enter_head)
        forward_peak = counter.end_forward()
        log_probs.sum().backward()
    return counter.trace(forward_peak, counter.take_peak())


def _score(model: nn.Module, compute: torch.dtype, rows: int, prompt: int, completion: int) -> Trace:
    counter = _Counter(model)
    with counter, torch.no_grad():
        _log_probs(model, compute, rows, prompt, completion, counter.enter_head)
    return counter.trace(counter.take_peak())


def _prefill(model: nn.Module, compute: torch.dtype, rows: int, prompt: int) -> Trace:
    counter = _Counter(model)
    with counter, torch.no_grad():
        cache = _step(model, compute, rows, prompt, None)
    return counter.trace(counter.take_peak(), cache=_cache_bytes(cache))


def _decode(model: nn.Module, compute: torch.dtype, rows: int, length: int) -> Trace:
    with torch.no_grad():
        cache = _step(model, compute, rows, length, None)
        counter = _Counter(model)
        for layer in cache.layers:
            counter.meet(layer.keys)
            counter.meet(layer.values)
        with counter:
            _step(model, compute, rows, 1, cache)
    return counter.trace(counter.take_peak(), cache=_cache_bytes(cache))


def _log_probs(
    model: nn.Module, compute: torch.dtype, rows: int, prompt: int, completion: int, at_head: Callable[..., None]
) -> torch.Tensor:
    """(rows, completion), as `RowTrainer` has them scored. `at_head` is called with the head's input."""

    def keep_completions(module: nn.Module, arguments: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, prompt - 1 : -1]
        at_head(output.last_hidden_state)
        return output

    # Rows are packed to the left, so attention needs no mask. On fake tensors transformers would make one all the same,
    # unless it is told by layer type that there is none.
    kinds = getattr(_causal(model).config, "layer_types", None)
    hook = _causal(model).base_model.register_forward_hook(keep_completions)
    ids = torch.zeros(rows, prompt + completion, dtype=torch.long)
    with torch.autocast("cpu", dtype=compute, enabled=compute != torch.float32):
        output = model(
            input_ids=ids,
            attention_mask=dict.fromkeys(kinds) if kinds else None,
            shift_labels=ids[:, prompt:],
            fused_lm_head=True,
        )
    hook.remove()
    return output.log_probs


def _step(model: nn.Module, compute: torch.dtype, rows: int, tokens: int, cache: Any) -> Any:
    """One call as `generate` makes it, with a mask, for the last token's logits. Returns the cache."""
    seen = cache.get_seq_length() if cache is not None else 0
    model.eval()
    # its own forward is what accelerate wraps: the weights are cast anew in every call
    with torch.autocast("cpu", dtype=compute, enabled=compute != torch.float32):
        output = model(
            input_ids=torch.zeros(rows, tokens, dtype=torch.long),
            attention_mask=torch.ones(rows, seen + tokens, dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
    output.logits.float()  # as accelerate returns it
    return output.past_key_values


def _cache_bytes(cache: Any) -> int:
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


class _Counter(TorchDispatchMode):
    """Follows every storage from the operator that makes it to its release, and every operator's work."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        weights = (*model.parameters(), *model.buffers())
        self._live = {t.untyped_storage()._cdata: 0 for t in weights}  # their bytes are counted elsewhere
        self._now = 0
        self._peak = 0
        self._head = 0
        self._before_head: int | None = None  # bytes when the head began, None outside it
        self._flops: list[float] = []
        self._traffic: list[float] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        made = [t for t in tree_iter(result) if isinstance(t, torch.Tensor)]
        for tensor in made:
            self.meet(tensor)
        operations = flop_registry.get(_IN_PLACE.get(func.overloadpacket, func.overloadpacket))
        self._flops.append(float(operations(*args, **kwargs, out_val=result)) if operations else 0.0)
        read = [t for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)]
        self._traffic.append(0.0 if func.is_view else float(sum(map(_nbytes, (*read, *made)))))
        return result

    def meet(self, tensor: torch.Tensor) -> None:
        """Count its storage, unless it is counted already, until it is released."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._now += self._live[key]
            self._peak = max(self._peak, self._now)
            if self._before_head is not None:
                self._head = max(self._head, self._now - self._before_head)
            weakref.finalize(storage, self._leave, key)

    def _leave(self, key: int) -> None:
        self._now -= self._live.pop(key)

    def take_peak(self) -> int:
        """The peak since the last call."""
        peak, self._peak = self._peak, self._now
        return peak

    def enter_head(self, states: torch.Tensor) -> None:
        """From now until the gradient of `states`, count the growth apart."""
        self._before_head = self._now
        if states.requires_grad:
            states.register_hook(self._leave_head)

    def _leave_head(self, gradient: torch.Tensor) -> None:
        self._before_head = None

    def end_forward(self) -> int:
        """The forward pass's peak. What the head holds beyond it is counted from here on."""
        self._before_head = self._now
        return self.take_peak()

    def trace(self, forward_peak: int, backward_peak: int = 0, cache: int = 0) -> Trace:
        return Trace(forward_peak, backward_peak, self._head, cache, np.array(self._flops), np.array(self._traffic))


def _release(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _causal(model: nn.Module) -> PreTrainedModel:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _nbytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _fake(model: nn.Module) -> None:
    """Put fake tensors of a CPU in the place of the meta ones; under FakeTensorMode only."""
    made: dict[int, torch.Tensor] = {}  # tied weights stay tied

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if parameter else empty
        return made[id(tensor)]

    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                held[name] = fake(tensor) if tensor is not None else None
