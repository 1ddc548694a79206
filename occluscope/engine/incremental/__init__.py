"""Exact occlusion by computing anew only what a window changes (incremental view maintenance of a network).

After Nakandala, Kumar & Papakonstantinou (2019), 'Incremental and Approximate Inference for Faster Occlusion-based
Deep CNN Explanations', SIGMOD: the unoccluded value of every layer is kept; of each occluded copy only the rectangle
that can differ is computed, read together with what lies around it in the kept value.
"""

from occluscope.engine.incremental.network import IncrementalNetwork

__all__ = ["IncrementalNetwork"]
