"""One file per published objective. An objective is a frozen dataclass of its hyper-parameters and its `fusion`."""
