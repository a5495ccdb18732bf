"""`python -m vizcnn` is the same program as `vizcnn`."""

from vizcnn.cli.main import main

main(prog_name="vizcnn")
