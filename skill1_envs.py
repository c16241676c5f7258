"""The name by which `verifiers` finds the environments: `vf-eval skill1-envs` (docs/environments.md)."""

from skill1.envs.adapters.verifiers import ChatHarness, GameEnv, GameTaskset

__all__ = ["ChatHarness", "GameEnv", "GameTaskset"]
