"""The shard protocol: how one process at a time turns a shard's inputs into its journal and its outputs.

Here core and transport meet. `journal` is the chain of entries, `snapshot` what bounds its replay, `history` what
they make of an exchange, `owner` the life of an owner: claim, recover, take inputs, commit.
"""
