"""The command line as ``python -m wsolnb``."""

from wsolnb.cli.app import app

if __name__ == "__main__":
    app(prog_name="wsolnb")
