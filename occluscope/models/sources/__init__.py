"""The half of each source that needs torch: networks with and without weights.

Each module has `with_weights(card)`, which returns the trained network on the CPU, and `without_weights(architecture,
weights)`, which returns the same network untrained. `occluscope.models.architectures` finds the module by a card's
source.
"""
