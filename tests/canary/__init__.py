"""Recognisable values in every tag, and a look at every byte that is written of them."""
