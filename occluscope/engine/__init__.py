"""How a model is run on very many occluded copies of one picture."""
