"""Families of models by name: what a checkpoint says it holds.

  model = build(config_of("t5", {"vocab_size": 32128, …}))
  family_of(model.config)  # "t5"

A family of one's own is trained, saved and loaded without being registered, as
long as its `LanguageModel` is given each time; registered, its checkpoints open
by themselves:

  register("my_family", MyConfig, my_model)
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import functools
import json
from typing import Any
from typing import NamedTuple

from gkd.models import config_fields
from gkd.models import decoder_only
from gkd.models import decoder_params
from gkd.models import markov
from gkd.models import parameter_table
from gkd.models import sizes
from gkd.models import t5
from gkd.models import t5_params
from gkd.models import t5gemma
from gkd.models import t5gemma_params
from gkd.models.layer_stack import PLAIN
from gkd.models.layer_stack import Execution
from gkd.models.parameter_table import Parameter
from gkd.types import LanguageModel
from gkd.types import UserError

T5 = "t5"
DECODER_ONLY = "decoder_only"
T5GEMMA = "t5gemma"


class Layout(NamedTuple):
  """What checkpoints and set-up ask of a family, see docs/families.md.

  Its configs have the fields that `config_fields.check` checks.

  Attributes:
    title: in messages, "T5".
    parameters: {name: parameter} of a config, sorted.
    depths: {stack: number of layers} of a config; the layers are named
      `<stack>/layers_<i>/…`.
    with_layers: the config of the model with some layers of each stack.
    in_words: a config in words.
    not_in_shapes: fields of which a model is another one with the same shapes.
  """

  title: str
  parameters: Callable[[Any], Mapping[str, Parameter]]
  depths: Callable[[Any], Mapping[str, int]]
  with_layers: Callable[[Any, Mapping[str, Sequence[int]]], Any]
  in_words: Callable[[Any], str]
  not_in_shapes: Sequence[str]


class Family(NamedTuple):
  """A frozen dataclass of sizes, and what makes a model of it.

  A family of one's own has no layout: its leaves are compared with the model
  alone.
  """

  config_type: type
  build: Callable[..., LanguageModel]  # of a config, and an Execution
  layout: Layout | None = None


_FAMILIES = {
  T5: Family(
    t5.T5Config,
    t5.encoder_decoder,
    Layout(
      "T5",
      t5_params.table,
      t5_params.depths,
      t5_params.with_layers,
      sizes.describe,
      ("mlp_activations", "relative_max_distance", "layer_norm_epsilon"),
    ),
  ),
  DECODER_ONLY: Family(
    decoder_only.DecoderConfig,
    decoder_only.decoder_only,
    Layout(
      "decoder-only model",
      decoder_params.table,
      decoder_params.depths,
      decoder_params.with_layers,
      sizes.describe_decoder,
      (
        *("mlp_activations", "norm_epsilon", "rope_theta", "rope_scaling"),
        *("num_heads", "num_kv_heads", "head_dim", "sliding_window", "gemma"),
      ),
    ),
  ),
  T5GEMMA: Family(
    t5gemma.T5GemmaConfig,
    t5gemma.t5gemma,
    Layout(
      "T5Gemma",
      t5gemma_params.table,
      t5gemma_params.depths,
      t5gemma_params.with_layers,
      t5gemma_params.describe,
      ("mlp_activations", "logit_cap", "encoder", "decoder"),
    ),
  ),
  "markov": Family(markov.MarkovConfig, markov.markov_chain),
}


def register(
  name: str, config_type: type, build: Callable[[Any], LanguageModel]
) -> None:
  """Makes checkpoints of a family open by themselves in this process."""
  known = _FAMILIES.get(name)
  if known is not None and known[:2] != (config_type, build):
    raise UserError(
      f"the model family {name!r} is registered already, with"
      f" {known.config_type.__qualname__}; choose another name"
    )
  _FAMILIES[name] = Family(config_type, build)


def family_of(config: Any) -> str:
  """Name of a config's family; that of its class where none is registered.

  Raises:
    UserError: not a frozen dataclass, not hashable, or with fields that JSON
      does not keep: it could not be saved, loaded or compared.
  """
  kind = type(config)
  is_record = dataclasses.is_dataclass(config)
  if not is_record or not kind.__dataclass_params__.frozen:
    raise UserError(
      f"LanguageModel.config is a {kind.__qualname__}; expected an instance of"
      " a frozen dataclass, which is saved with the parameters"
    )
  family = canonical(_class_name(kind))
  try:
    hash(config)
    saved = json.loads(json.dumps(dataclasses.asdict(config)))
    is_kept = family not in _FAMILIES or config_of(family, saved) == config
  except TypeError as error:
    raise UserError(
      f"LanguageModel.config, a {kind.__qualname__}, cannot be saved or"
      f" compared ({error}); expected numbers, strings, tuples and frozen"
      " dataclasses"
    ) from error
  if not is_kept:
    raise UserError(
      f"LanguageModel.config, a {kind.__qualname__}, is another one when it is"
      " read from JSON; expected numbers, strings, tuples and frozen"
      " dataclasses, each field with its type"
    )
  return family


def canonical(family: str) -> str:
  """The registered name of a family that was saved under its class's name."""
  for name, known in _FAMILIES.items():
    if family == _class_name(known.config_type):
      return name
  return family


def layout_of(config: Any) -> Layout | None:
  """What is known of a config's family; None of a family of one's own."""
  family = _FAMILIES.get(canonical(_class_name(type(config))))
  return family and family.layout


def num_parameters(config: Any) -> int:
  """Scalars of all parameters of a config whose family has a layout."""
  return parameter_table.num_parameters(layout_of(config).parameters(config))


def with_sizes() -> dict[str, type]:
  """{family: type of its configs}, where a configuration may give the sizes."""
  known = _FAMILIES.items()
  return {name: family.config_type for name, family in known if family.layout}


def fields_with_sizes() -> list[str]:
  """Fields of the configs of these families, each once."""
  types = with_sizes().values()
  names = [f.name for kind in types for f in dataclasses.fields(kind)]
  return list(dict.fromkeys(names))


def macro_of(role: str, family: str) -> str:
  """Macro of a role's model: its sizes, or the model of one's own family.

  Args:
    role: "student", "teacher" or another.
    family: its name, or that of the class of its configs.
  """
  known = with_sizes()
  types = [kind.__qualname__ for kind in known.values()]
  return f"{role.upper()}_MODEL" if family in [*known, *types] else role.upper()


def config_of(family: str, fields: Mapping[str, Any]) -> Any:
  """Config of a family from its saved fields; the fields if it is unknown."""
  if (known := _FAMILIES.get(canonical(family))) is None:
    return dict(fields)
  if known.layout:  # says more about a wrong field
    return config_fields.from_fields(known.config_type, fields)
  try:
    return config_fields.from_json(known.config_type, fields)
  except (NameError, TypeError) as error:  # a field, or the type of one
    raise UserError(
      f"the saved config of a model of the family {family!r} does not fit"
      f" {known.config_type.__qualname__} ({error}); use the code that it was"
      " saved with"
    ) from error


def build(
  config: Any, origin: str = "the model", execution: Execution = PLAIN
) -> LanguageModel:
  """The model of a config.

  Args:
    config: of a registered family.
    origin: says whose it is in the message.
    execution: how its layers are run, where the family has a layout.

  Raises:
    UserError: its family is not registered, or runs its layers in one way.
  """
  family = _FAMILIES.get(canonical(_class_name(type(config))))
  if family is None:
    raise UserError(
      f"{origin} is of a family that gkd does not know; bind its LanguageModel,"
      " or call gkd.models.registry.register in the module that defines it"
    )
  if execution == PLAIN:
    return _built(family.build, config)
  if family.layout is None:
    raise UserError(
      f"{origin} is of a family that runs its layers one after the other; leave"
      " SCAN_LAYERS and REMAT out"
    )
  return _built(family.build, config, execution)


# Programs are compiled once for each `LanguageModel`.
@functools.lru_cache(maxsize=64)
def _built(make: Callable[..., LanguageModel], *args: Any) -> LanguageModel:
  return make(*args)


def _class_name(config_type: type) -> str:
  return f"{config_type.__module__}.{config_type.__qualname__}"
