"""`python -m wsolnb` is the command line."""

from wsolnb.cli.app import app

app(prog_name="wsolnb")
