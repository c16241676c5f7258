"""Environments: text games behind one vector interface (`skill1.envs.base`)."""
