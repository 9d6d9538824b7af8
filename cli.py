"""The command line: parses, calls nxcc.compiler, prints, returns the exit code; heavy imports stay inside the commands."""

import click


@click.group()
@click.version_option(package_name="nxcc")
def main() -> None:
    """Compile models for AWS NeuronCores, and check every compile without a chip."""


if __name__ == "__main__":
    main()
