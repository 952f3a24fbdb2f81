"""Training and export of networks with PyTorch (extra ``[train]``)."""
