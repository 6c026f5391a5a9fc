"""`python -m emulator`: the command line without the rest of the project."""

from emulator.cli import app

if __name__ == "__main__":
    app(prog_name="python -m emulator")
