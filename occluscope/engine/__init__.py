"""Runs a model on very many occluded copies of one picture."""
