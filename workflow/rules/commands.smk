# Commands of `rib` that somebody takes for targets.


def name_of_command(name):
    """Input function that says which command is meant."""

    def refuse(wildcards):
        """Raise a UserError with the command."""
        raise UserError(f"run `rib {name}` in place of `snakemake {name}`; it is a command.")

    return refuse


for NAME in ("plan", "preview", "verify", "track", "pull"):

    rule:
        name:
            NAME
        input:
            name_of_command(NAME),
