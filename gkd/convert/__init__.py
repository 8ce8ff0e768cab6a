"""T5 models in and out: our layout, T5X's checkpoints, Hugging Face folders.

config, params = convert.read("flan-t5-small")
convert.convert("flan-t5-small", "models/flan_small", to="gkd")
"""

from gkd.convert.converting import convert as convert
from gkd.convert.formats import detect as detect
from gkd.convert.opening import open_any as open_any
from gkd.convert.opening import read as read
