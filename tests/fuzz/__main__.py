"""``python -m tests.fuzz TARGET --seconds 600``: coverage-guided fuzzing of one parser, with Atheris (libFuzzer).

The target ``all`` is every parser in turn. A run begins with the target's seeds, and with what ``--corpus``, a folder,
has from earlier runs and is added to. It ends with an error at the first input that raises what the parser does not
declare, or that takes longer than five seconds, and writes that input to a file ``crash-…`` or ``timeout-…`` in the
working directory.
"""

import argparse
import importlib
import sys
import tempfile
from pathlib import Path

import atheris

PARSERS = ["bellwire.protocol", "bellwire.guard", "bellwire.delivery.offset", "bellwire.brokers.envelope"]
"""What is watched; to instrument all of Bellwire takes as long as a short run."""

INPUT_SECONDS = 5
INPUT_BYTES = 4096
MEMORY_MIB = 1024


def main() -> None:
    """Run one target; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="0 for another one each time")
    options = parser.parse_args()
    with atheris.instrument_imports(include=PARSERS):
        module = importlib.import_module("tests.fuzz.targets")
    targets = module.TARGETS
    if options.target == "all":
        target = module.everything
        seeds = [bytes((place,)) + seed for place, (_, seeds) in enumerate(targets.values()) for seed in seeds]
    elif options.target in targets:
        target, seeds = targets[options.target]
    else:
        parser.error(f"there is no target {options.target!r}: choose all, or one of {', '.join(targets)}")
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [
        sys.argv[0],
        str(corpus),
        f"-max_total_time={options.seconds}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={INPUT_BYTES}",
        f"-rss_limit_mb={MEMORY_MIB}",
        "-print_final_stats=1",
        *([f"-seed={options.seed}"] if options.seed else []),
    ]
    atheris.Setup(arguments, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
