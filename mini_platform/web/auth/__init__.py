"""Authentication and authorization: keys, sessions and browser origins. Not here: what a key may see of a dataset."""
