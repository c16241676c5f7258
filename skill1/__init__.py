"""Skill1: one policy that selects, uses and distils skills, trained with GRPO (arXiv 2605.06130)."""

import atexit
import gc
import os
import sys
import warnings

__version__ = "0.1.0"

# Every process of ours comes by here before it loads torch and transformers: half a million objects that live as long as
# it does. Collecting garbage among them takes a third of the time it needs to start and to end.
gc.set_threshold(50_000, 20, 20)
atexit.register(gc.freeze)

# Transformers' bars, one per file that is read, are for terminals; TRL 1.16 and peft 0.21 ask it by an old name whether
# a model is checkpointed, once a step. DeepSpeed 0.19 exchanges weights and gradients by old names.
if not sys.stderr.isatty():
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)
