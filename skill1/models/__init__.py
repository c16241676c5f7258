"""Trained models as folders: export, model cards, evaluation of any model."""
