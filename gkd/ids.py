"""The two ids that every vocabulary shares; needs nothing, not even jax.

Processes that only handle text import them from here; all others know them as
`gkd.types.PAD_ID` and `gkd.types.EOS_ID`.
"""

PAD_ID = 0
EOS_ID = 1
