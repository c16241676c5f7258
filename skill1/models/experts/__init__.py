"""Environments' experts for `skill1 demonstrate --by expert`, each named by its `EnvironmentSpec.expert`."""
