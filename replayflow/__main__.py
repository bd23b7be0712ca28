"""`python -m replayflow`: the command line, also where the console script is not on the path."""

from replayflow.cli import main

if __name__ == "__main__":  # the processes of a pool import this module, and must not begin anew
    main(prog_name="replayflow")
