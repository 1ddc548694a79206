"""The half of each source that needs torch: networks with and without weights.

Each module has `with_weights(card)`, the trained network on the CPU, and `without_weights(architecture, weights)`, the
same network as its constructor gives it; `occluscope.models.architectures` finds the module by a card's source.
"""
