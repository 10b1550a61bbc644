"""Who gets in, by which key or session, and from where a browser may ask. Not here: what they may then see of a dataset."""
