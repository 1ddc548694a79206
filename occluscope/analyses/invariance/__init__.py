"""Invariance: how features and predictions change as the picture is moved, scaled, turned, darkened."""
