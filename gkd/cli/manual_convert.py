"""Help of `gkd convert`, see `gkd.cli.help_pages`."""

from gkd.cli.help_page import Page

PAGES = {
  "convert": Page(
    "convert a T5 between gkd, T5X and Hugging Face, bit for bit",
    """
reads:
  SRC, whose format and family are detected: a run (its newest checkpoint), one
  checkpoint of it or a saved model of gkd; a T5X checkpoint or a folder of them
  (msgpack and zarr, or Orbax; layers stacked or not); a Hugging Face folder
  (config.json, model.safetensors, in one file or many). No code is run from a
  checkpoint: a .bin is refused, with the command that converts it. Names and
  shapes of all arrays are compared with those of the model: what is missing,
  left over or misshapen is listed
writes:
  DST, a folder that does not exist or is empty; there whole or not at all. It
  reads and writes one array after the other, so that memory stays near the
  largest. T5X: msgpack and zarr, which every T5X opens. Hugging Face: float32
  or bfloat16 as stored, the tokenizer, and README.md, the model card; of a run
  that says teacher, data, objective and scores. To the terminal: what was
  found, what was assumed because the source does not say it, what is left out
knobs:
  the flags above. --set gives fields of T5Config: vocabulary_size (real ids),
  mlp_activations=silu,linear, relative_max_distance=128, … T5X keeps no sizes,
  they are read off the shapes; what the source says cannot be changed
resume:
  nothing to resume: what a kill left is removed when the same command is given
  again, which starts anew
""",
    """
  gkd convert flan_t5_small/checkpoint_1198000 --to=gkd --dry_run
  gkd convert flan_t5_small/checkpoint_1198000 models/flan_small --to=gkd \\
    --tokenizer=spiece.model
  gkd convert runs/gkd student --to=hf --license=apache-2.0
""",
  )
}
