"""What each format calls the parameters, and the shapes that they have there.

table("t5x", config)["encoder/layers_3/mlp/wo/kernel"]
"""

from gkd.checkpoints.checkpoint import Format
from gkd.models import t5_params
from gkd.models.t5 import T5Config


def table(
  format: Format, config: T5Config
) -> dict[str, tuple[str, tuple[int, ...]]]:
  """{our name: (name, shape)} in a format that gkd writes.

  Args:
    format: "gkd", "t5x" or "hf".
    config: of the model; T5X stacks the layers of one with bias_per_layer.
  """
  parameters = t5_params.table(config)
  if format == "gkd":
    return {name: (name, row.shape) for name, row in parameters.items()}
  if format == "hf":
    return {name: (r.hf_name, r.hf_shape) for name, r in parameters.items()}
  sizes, depths = t5_params.axis_sizes(config), t5_params.depths(config)
  stored = {}
  for name, row in parameters.items():
    target, shape = f"target.{name.replace('/', '.')}", row.shape
    place = t5_params.stacked_name(name) if config.bias_per_layer else None
    if place is not None:
      stacked, layer = place
      sizes["layers"] = depths[stacked.partition("/")[0]]
      shape = tuple(sizes[axis] for axis in t5_params.stacked_axes(stacked))
      target = f"target.{stacked.replace('/', '.')}[:, {layer}]"
    stored[name] = (target, shape)
  return stored
