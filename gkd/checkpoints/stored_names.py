"""What each format calls a parameter, and the shape that it has there.

stored("t5x", config, "encoder/layers_3/mlp/wo/kernel", (1024, 512))
"""

from gkd.checkpoints.checkpoint import Format
from gkd.checkpoints.t5x import stacked_layers
from gkd.models.t5 import T5Config

Shape = tuple[int, ...]


def stored(
  format: Format, config: T5Config, name: str, shape: Shape
) -> tuple[str, Shape]:
  """Name and shape of a parameter in a format that gkd writes.

  Args:
    format: "gkd", "t5x" or "hf".
    config: of the model; T5X stacks the layers of one with bias_per_layer.
    name: our name of it, which is T5X's unscanned one.
    shape: our shape of it.
  """
  if format == "hf":
    from gkd.checkpoints.hf import hf_folder

    return hf_folder.stored(config, name, shape)
  if format == "t5x":
    place = stacked_layers.stacked_name(name) if config.bias_per_layer else None
    if place is None:
      return "target." + name.replace("/", "."), shape
    layers = config.num_encoder_layers
    if name.startswith("decoder/"):
      layers = config.num_decoder_layers
    stacked = stacked_layers.stacked_shape(
      place[0], shape, layers, config.num_heads
    )
    return f"target.{place[0].replace('/', '.')}[:, {place[1]}]", stacked
  return name, shape
