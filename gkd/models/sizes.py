"""Published sizes of T5 and its descendants, by name, and a config in words.

  config = T5Config.from_size(named("T5_1_1_SMALL"), dropout_rate=0.1)
  describe(config)  # "T5 1.1 small (76.96M parameters)"

T5 1.1, its LM-adapted variants and Flan-T5 have the same shapes, so that
nothing on disk tells them apart.

Sources: t5x/examples/t5 (T5 1.0, T5 1.1, mT5, umT5, ByT5), google/ul2.
"""

from collections.abc import Mapping
import difflib
from typing import Any
from typing import NamedTuple

from gkd.models import decoder_params
from gkd.models import parameter_table
from gkd.models import t5_params
from gkd.types import UserError

_FIELDS = (
  *("emb_dim", "num_heads", "num_encoder_layers", "num_decoder_layers"),
  *("head_dim", "mlp_dim"),
)
# Values of _FIELDS, by the name of the size.
_T5_1_0 = {
  "small": (512, 8, 6, 6, 64, 2048),
  "base": (768, 12, 12, 12, 64, 3072),
  "large": (1024, 16, 24, 24, 64, 4096),
  "3B": (1024, 32, 24, 24, 128, 16384),
  "11B": (1024, 128, 24, 24, 128, 65536),
}
_T5_1_1 = {
  "small": (512, 6, 8, 8, 64, 1024),
  "base": (768, 12, 12, 12, 64, 2048),
  "large": (1024, 16, 24, 24, 64, 2816),
  "xl": (2048, 32, 24, 24, 64, 5120),
  "xxl": (4096, 64, 24, 24, 64, 10240),
}
_UMT5 = {size: row for size, row in _T5_1_1.items() if size != "large"}
_BYT5 = {
  "small": (1472, 6, 12, 4, 64, 3584),
  "base": (1536, 12, 18, 6, 64, 3968),
  "large": (1536, 16, 36, 12, 64, 3840),
  "xl": (2560, 32, 36, 12, 64, 6720),
  "xxl": (4672, 64, 36, 12, 64, 12352),
}
_UL2 = {"20B": (4096, 16, 32, 32, 256, 16384)}
# Trained from nothing, for a vocabulary that is made from the run's own data.
_SCRATCH = {"mini": (64, 4, 2, 2, 16, 128), "small": (128, 4, 2, 2, 32, 256)}
_GATED_GELU = ("gelu", "linear")
_GATED_SILU = ("silu", "linear")


class _Series(NamedTuple):
  """Published models; `rows` of their table hold `ids` real ids, then padding.

  Source: docs/models.md of T5X.
  """

  sizes: Mapping[str, tuple[int, ...]]
  rows: int = 32128
  ids: int = 32100
  activations: tuple[str, ...] = _GATED_GELU
  tied: bool = False
  bias_per_layer: bool = False


_SERIES = {
  "T5_1_0": _Series(_T5_1_0, activations=("relu",), tied=True),
  "T5_1_1": _Series(_T5_1_1),
  "MT5": _Series(_T5_1_1, 250112, 250100),
  "UMT5": _Series(_UMT5, 256384, 256300, bias_per_layer=True),
  "BYT5": _Series(_BYT5, 384, 384),
  "UL2": _Series(_UL2, activations=_GATED_SILU),
}
_REAL_IDS = {series.rows: series.ids for series in _SERIES.values()}
_SERIES["SCRATCH"] = _Series(_SCRATCH, 4096, 4096)
# Trained further, of the same sizes.
_SERIES |= {
  "T5_1_1_LM100K": _SERIES["T5_1_1"],
  "FLAN_T5": _SERIES["T5_1_1"],
  "MT5_LM_ADAPTED": _SERIES["MT5"],
  "FLAN_UL2": _SERIES["UL2"],
}
_NAMED = {
  f"{name}_{size.upper()}": (series, row)
  for name, series in _SERIES.items()
  for size, row in series.sizes.items()
}
NAMES = tuple(_NAMED)


def nearest(name: str) -> str:
  """The sizes that were probably meant, as a question; "" if there is none."""
  names = difflib.get_close_matches(name.upper(), NAMES, n=5, cutoff=0.6)
  return f"did you mean {' or '.join(names)}? " * bool(names)


def named(name: str) -> dict[str, Any]:
  """Fields of `T5Config` of a size such as "T5_1_1_SMALL".

  Raises:
    UserError: no such size.
  """
  if name not in _NAMED:
    raise UserError(
      f"there is no model size {name!r}; {nearest(name)}see gkd list models, or"
      " give the fields of T5Config"
    )
  series, row = _NAMED[name]
  return {
    **dict(zip(_FIELDS, row, strict=True)),
    "vocab_size": series.rows,
    "vocabulary_size": series.ids,
    "mlp_activations": series.activations,
    "logits_via_embedding": series.tied,
    "bias_per_layer": series.bias_per_layer,
  }


def known_vocabulary_size(rows: int) -> int:
  """Real ids among the rows of a public embedding table; `rows` if unknown."""
  return _REAL_IDS.get(rows, rows)


def is_public_table(rows: int) -> bool:
  """Whether a published model has a table of so many rows."""
  return rows in _REAL_IDS


def describe(config: Any) -> str:
  """Family, size and number of parameters of a `T5Config`.

  A size that was not published is described by its numbers.
  """
  family, sizes = _family(config)
  row = tuple(getattr(config, field) for field in _FIELDS)
  size = {numbers: name for name, numbers in sizes.items()}.get(row)
  if size is None:
    size = (
      f"of width {config.emb_dim}, {config.num_encoder_layers} +"
      f" {config.num_decoder_layers} layers, {config.num_heads} heads of"
      f" {config.head_dim}, MLP {config.mlp_dim}"
    )
  count = parameter_table.num_parameters(t5_params.table(config))
  return f"{family} {size} ({short_number(count)} parameters)"


def describe_decoder(config: Any) -> str:
  """Size and number of parameters of a `DecoderConfig`."""
  count = parameter_table.num_parameters(decoder_params.table(config))
  return (
    f"decoder-only model of width {config.emb_dim}, {config.num_layers} layers,"
    f" {config.num_heads} heads of {config.head_dim} and {config.num_kv_heads}"
    f" of keys, MLP {config.mlp_dim} ({short_number(count)} parameters)"
  )


def short_number(count: int) -> str:
  """76961152 as "76.96M", as papers write sizes."""
  for scale, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
    if count >= scale:
      digits = 3 if letter == "B" else 2
      return f"{count / scale:.{digits}f}{letter}"
  return str(count)


def _family(config: Any) -> tuple[str, Mapping[str, tuple[int, ...]]]:
  activations = config.mlp_activations
  if config.logits_via_embedding and activations == ("relu",):
    return "T5 1.0", _T5_1_0
  if config.logits_via_embedding:
    return f"T5 with tied embeddings and {'·'.join(activations)}", {}
  if activations == _GATED_SILU:
    return "UL2-style T5 (gated SiLU)", _UL2
  if activations != _GATED_GELU:
    return f"T5 with its own head and {'·'.join(activations)}", {}
  if config.bias_per_layer:
    kind = "umT5" if config.vocab_size == 256384 else "umT5-style T5"
    return f"{kind} (a bias per layer)", _T5_1_1
  if config.vocab_size == 250112:
    return "mT5", _T5_1_1
  if config.vocab_size == 384:
    return "ByT5", _BYT5
  return "T5 1.1", _T5_1_1
