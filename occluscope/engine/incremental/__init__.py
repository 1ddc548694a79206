"""Exact occlusion that computes only what a window changes (incremental view maintenance of a network).

After Nakandala, Kumar & Papakonstantinou (2019), 'Incremental and Approximate Inference for Faster Occlusion-based
Deep CNN Explanations', SIGMOD. The unoccluded value of every layer is kept. For each occluded copy only the rectangle
that can differ is computed; pixels around it are read from the kept value.
"""

from occluscope.engine.incremental.network import IncrementalNetwork

__all__ = ["IncrementalNetwork"]
