"""The bus actors: each owns one kind of hardware and lends its outputs."""
