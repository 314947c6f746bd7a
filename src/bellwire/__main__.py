"""``python -m bellwire``: the same as the command ``bellwire``."""

from bellwire.cli import main

if __name__ == "__main__":
    main(prog_name="python -m bellwire")
