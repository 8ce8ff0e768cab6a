"""The programs that are compared take turns, and the results are complete."""

import json

import jax
import optax
import pytest

from benchmarks.peers import plain_jax
from benchmarks.peers import t5
from benchmarks.peers import t5_gkd
from benchmarks.peers import turns
from benchmarks.peers import work

LIKE_T5_1_1 = {
  "mlp_activations": ("gelu", "linear"),
  "logits_via_embedding": False,
}


def test_programs_take_turns(tmp_path, monkeypatch):
  file = tmp_path / "t5.json"
  flags = "--size=tiny --target_length=3 --rounds=2 --steps=1"
  flags = [*flags.split(), f"--output={file}", "--peers", "gkd", "plain_jax"]
  monkeypatch.setattr("sys.argv", ["t5", *flags])
  t5.main()
  result = json.loads(file.read_text())
  phases = result["summary"]["on_policy"]["gkd"]
  assert phases["sample_wall"]["seconds"]["min"] > 0
  assert phases["step_cpu"]["ratio"]["median"] == 1
  assert result["summary"]["on_policy_over_fixed"]["median"] > 1
  for replies in result["warm_up"]:
    supervised = replies["supervised"]
    want = pytest.approx(supervised["gkd"]["loss"], rel=1e-6)
    assert supervised["plain_jax"]["loss"] == want


def test_plain_jax_has_gkds_gradient_norm(monkeypatch):
  monkeypatch.setitem(work.SIZES, "tiny", work.SIZES["tiny"] | LIKE_T5_1_1)
  args = work.with_defaults(t5.parser().parse_args(["--size=tiny"]))
  ours, plain = t5_gkd.Steps(args), plain_jax.Steps(args)
  gradient = jax.jit(jax.grad(plain_jax.loss_of), static_argnums=1)(
    plain.weights, plain.sizes, *plain.batch
  )
  want = ours.supervised()
  assert plain.supervised()["loss"] == pytest.approx(want["loss"], rel=1e-6)
  norm = float(optax.global_norm(gradient))
  assert norm == pytest.approx(want["grad_norm"], rel=1e-5)


def test_plain_jax_is_float32_alone(monkeypatch, capsys):
  monkeypatch.setattr("sys.argv", ["t5", "--size=tiny", "--dtype=bfloat16"])
  with pytest.raises(SystemExit):
    t5.main()
  assert "give --peers gkd transformers" in capsys.readouterr().err


def test_ratios_are_taken_by_round():
  def reply(seconds):
    return {"step": {"wall": seconds, "cpu": 1.0}, "peak_rss_bytes": 1}

  rounds = [
    {"gkd": reply(ours), "peer": reply(theirs)}
    for ours, theirs in ((1.0, 3.0), (2.0, 4.0), (8.0, 8.0))
  ]
  entry = turns.summary(rounds)["peer"]["step_wall"]
  assert entry["ratio"] == {"min": 1, "median": 2, "max": 3}
  assert entry["seconds"]["median"] == pytest.approx(4)
