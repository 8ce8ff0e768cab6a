"""GGUF files, written by the gguf package: read, converted, damaged."""

import sys

import gguf
import numpy as np
import pytest

from gkd import gguf_file
from gkd.checkpoints import format_detection
from gkd.checkpoints import source
from gkd.checkpoints.hf import safetensors_file
from gkd.text import tokenizer_folder
from gkd.text import vocabulary
from gkd.types import UserError
from tests import tiny_tokenizers
from tests.checkpoints import tiny_decoders
from tests.checkpoints import tiny_models
from tests.checkpoints.tiny_gguf import F32
from tests.checkpoints.tiny_gguf import Q8_0
from tests.checkpoints.tiny_gguf import make_file


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "mistral"])
def test_a_file_is_the_folder_that_it_was_made_of(tmp_path, kind):
  """Of a Mistral llama.cpp makes a `llama`, with the rows of one."""
  arch = {"mistral": "llama"}.get(kind, kind)
  tensors = tiny_decoders.arrays(kind)
  changes = {"rope_scaling": None}
  if kind == "mistral":
    changes |= {"rms_norm_eps": 1e-5, "rope_theta": 10000.0}
  folder = tiny_decoders.make_folder(tmp_path / "a", kind, tensors, **changes)
  own = {"llama.rope.freq_base": 10000.0, "llama.attention.sliding_window": 4}
  own = own if arch == "llama" else {}
  file = make_file(tmp_path / "a.gguf", arch, F32, tensors, **own)
  ours, theirs = map(source.open_checkpoint, (file, folder))
  tiny_models.assert_same_arrays(ours.leaves, theirs.leaves)
  assert ours.config == theirs.config


def test_tokens_are_real_ids_and_become_a_tokenizer_json(tmp_path):
  metadata = tiny_tokenizers.gguf_metadata(tiny_tokenizers.bpe_json(), "smollm")
  rows = len(metadata["tokenizer.ggml.tokens"])  # the last one fills the table
  table = np.random.default_rng(0).normal(size=(rows, 32)).astype(np.float32)
  tensors = tiny_decoders.arrays("qwen3") | {"model.embed_tokens.weight": table}
  file = make_file(tmp_path / "a.gguf", "qwen3", F32, tensors, **metadata)
  config = source.open_checkpoint(file).config
  assert (config.vocab_size, config.vocabulary_size) == (rows, rows - 1)
  words = tokenizer_folder.load(file)
  assert config.eos_ids == words.eos_ids
  tiny_models.convert(file, tmp_path / "hf", to="hf")
  again = tokenizer_folder.load(tmp_path / "hf")
  assert vocabulary.first_difference(words, again) is None
  written = tiny_models.read_json(tmp_path / "hf" / "config.json")
  assert written["max_position_embeddings"] == 128


def test_weights_are_those_of_the_gguf_package_bit_for_bit(tmp_path):
  file = make_file(tmp_path / "a.gguf", "qwen3", Q8_0)
  opened = source.open_checkpoint(file)
  assert any("were quantised (22 Q8_0, 13 F32)" in t for t in opened.assumed)
  tensors = {t.name: t for t in gguf.GGUFReader(file).tensors}
  theirs = gguf.dequantize(tensors["blk.2.ffn_down.weight"].data, Q8_0)
  leaf = opened.leaves["decoder/layers_2/mlp/wo/kernel"]
  assert leaf.read().tobytes() == np.ascontiguousarray(theirs.T).tobytes()
  assert leaf.shape == (64, 32)


def test_gemma_keeps_one_plus_w_and_is_written_as_w(tmp_path):
  tensors = tiny_decoders.arrays("gemma3_text")
  values = {"gemma3.attention.sliding_window": 4}
  file = make_file(tmp_path / "a.gguf", "gemma3_text", F32, tensors, **values)
  opened = source.open_checkpoint(file)
  gemma = opened.config.gemma
  norm = "decoder/layers_1/self_attention/query_norm/scale"
  theirs = tensors["model.layers.1.self_attn.q_norm.weight"]
  np.testing.assert_array_equal(opened.leaves[norm].read(), theirs + 1)
  assert (gemma.norm_offset, gemma.sliding_window) == (0, 4)
  said = [text for text in opened.assumed if text.startswith("gemma:")]
  assert "global_every 6, local_rope_theta 10000, which the file" in said[0]

  planned = tiny_models.convert(file, tmp_path / "hf", to="hf")
  assert planned.config.gemma.norm_offset == 1
  written = safetensors_file.open_folder(tmp_path / "hf")
  w = written["model.layers.1.self_attn.q_norm.weight"].read()
  np.testing.assert_array_equal(1 + w, theirs + 1)


def test_what_a_gemma_says_of_its_local_layers_is_not_assumed(tmp_path):
  values = {
    "gemma3.attention.sliding_window": 4,
    "gemma3.attention.sliding_window_pattern": 2,
    "gemma3.rope.freq_base_swa": 500.0,
  }
  opened = source.open_checkpoint(
    make_file(tmp_path / "a.gguf", "gemma3_text", **values)
  )
  gemma = opened.config.gemma
  assert (gemma.global_every, gemma.local_rope_theta) == (2, 500.0)
  said = [text for text in opened.assumed if text.startswith("gemma:")]
  assert said[0].startswith("gemma: query_scale 0.353553, which the file does")


def test_llama_3s_table_of_rotations_is_recognised(tmp_path):
  """llama.cpp writes what it divides each frequency by, and no settings."""
  frequencies = 500000.0 ** (-np.arange(0, 8, 2) / 8)
  wavelengths = 2 * np.pi / frequencies
  share = np.clip((8192 / wavelengths - 1) / 3, 0, 1)
  table = (1 / ((1 - share) / 32 + share)).astype(np.float32)
  assert 1 == table[0] < table[-1] == 32
  tensors = tiny_decoders.arrays("llama") | {"rope_freqs.weight": table}
  file = make_file(tmp_path / "a.gguf", "llama", F32, tensors)
  scaling = source.open_checkpoint(file).config.rope_scaling
  assert (scaling.kind, scaling.factor) == ("llama3", 32.0)
  sizes = ((np.sqrt(table), 8), (table, 2**32 - 2), (table[:0], 8))
  for other, size in sizes:
    tensors["rope_freqs.weight"] = other
    lengths = {"attention.key_length": size, "attention.value_length": size}
    metadata = {f"llama.{name}": value for name, value in lengths.items()}
    file = make_file(tmp_path / "b.gguf", "llama", F32, tensors, **metadata)
    with pytest.raises(UserError, match=r"rope_freqs\.weight that is not Lla"):
      source.open_checkpoint(file)


@pytest.mark.parametrize(
  "settings",
  [
    {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    {"rope.scaling.factor": 4.0},
    {"rope.scale_linear": 4.0},  # of old files
  ],
)
def test_a_factor_of_rotations_is_linear_as_llama_cpp_takes_it(
  tmp_path, settings
):
  metadata = {f"qwen3.{name}": value for name, value in settings.items()}
  file = make_file(tmp_path / "a.gguf", "qwen3", **metadata)
  scaling = source.open_checkpoint(file).config.rope_scaling
  assert (scaling.kind, scaling.factor) == ("linear", 4.0)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"general.architecture": "mamba"}, "architecture 'mamba'; expected one"),
    ({"llama.final_logit_softcapping": 30.0}, "softcapping 30.0, which gkd"),
    ({"llama.expert_count": 8}, "has expert_count 8, which gkd does not"),
    ({"llama.rope.dimension_count": 4}, "has rope.dimension_count 4, which"),
    ({"llama.rope.scaling.type": "yarn"}, "scales rotary positions by 'yarn'"),
    ({"llama.embedding_length": "x"}, "emb_dim is 'x'; expected a positive"),
    ({"llama.attention.head_count": 0}, "num_heads is 0; expected a positive"),
    ({"llama.block_count": 9}, r"is not the decoder-only .* missing: blk\.3"),
    ({"split.count": 3}, "is one of 3 parts; join them: llama-gguf-split"),
  ],
)
def test_what_gkd_does_not_compute_is_refused(tmp_path, changes, message):
  file = make_file(tmp_path / "a.gguf", **changes)
  with pytest.raises(UserError, match=message) as caught:
    source.open_checkpoint(file)
  assert "\n" not in str(caught.value)


def test_a_truncated_file_is_damaged_wherever_it_ends(tmp_path):
  content = make_file(tmp_path / "a.gguf").read_bytes()
  short = tmp_path / "short.gguf"
  ends = [*range(0, 200, 7), *range(200, len(content), 999), len(content) - 1]
  for end in ends:
    short.write_bytes(content[:end])
    with pytest.raises(UserError, match="is damaged or only half there"):
      source.open_checkpoint(short)


@pytest.mark.parametrize("at", [0, 4, 8, 16, 24])
def test_counts_and_lengths_beyond_the_file_are_noticed(tmp_path, at):
  """Magic, version, tensors, values, length of the first name."""
  file = make_file(tmp_path / "a.gguf")
  content = bytearray(file.read_bytes())
  content[at : at + 4] = b"\xff\xff\xff\x7f"
  file.write_bytes(bytes(content))
  with pytest.raises(UserError, match="is damaged or only half there"):
    gguf_file.read(file)


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
  file = make_file(tmp_path / "a.gguf")
  monkeypatch.setitem(sys.modules, "gguf", None)
  with pytest.raises(UserError, match=r"pip install 'gkd\[gguf\]'"):
    source.open_checkpoint(file)


def test_the_folder_of_a_file_says_to_give_the_file(tmp_path):
  file = make_file(tmp_path / "a.gguf")
  assert format_detection.detect(file) == "gguf"
  with pytest.raises(UserError, match=rf"give the file: {file}"):
    format_detection.detect(tmp_path)


def test_the_licence_goes_to_the_model_card(tmp_path):
  file = make_file(tmp_path / "a.gguf", "qwen3", Q8_0)
  planned = tiny_models.convert(file, tmp_path / "ours", to="gkd")
  assert "license: apache-2.0" in planned.assumed
  tiny_models.convert(tmp_path / "ours", tmp_path / "hf", to="hf")
  assert '\nlicense: "apache-2.0"\n' in (tmp_path / "hf/README.md").read_text()
  tiny_models.assert_same_arrays(
    source.open_checkpoint(tmp_path / "hf").leaves,
    source.open_checkpoint(file).leaves,
  )
