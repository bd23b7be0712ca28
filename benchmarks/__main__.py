"""Asks the questions, and prints medians, spreads, ratios and bars.

python -m benchmarks               at full size, beside the peers that are installed
python -m benchmarks --short       smaller, in a minute or two
python -m benchmarks chain fan     only these

The floor is the toy that shows how fast durable replay can be in plain Python on the machine at hand.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks import contestants
from benchmarks.machine import this_machine
from benchmarks.questions import QUESTIONS
from benchmarks.report import bars_text_of, document_of, text_of
from benchmarks.runner import Answer, MeasurementError, ask


def main() -> None:
    options = _options()
    if not Path("/proc/self/io").exists():
        sys.exit("the benchmarks read /proc to see what a process uses: they need Linux")
    machine = this_machine()
    print(f"{machine}\n{_how_to_read(options.rounds)}", flush=True)
    in_turn = _contestants(options)
    labels = {contestant.name: contestant.label for contestant in in_turn}
    answers: list[Answer] = []
    for question in QUESTIONS.values():
        if options.questions and question.name not in options.questions:
            continue
        for n in options.n or (question.short_sizes if options.short else question.sizes):
            try:
                answers.append(ask(question, n, in_turn, options.rounds))
            except MeasurementError as error:
                sys.exit(str(error))
            print(text_of(answers[-1], labels), flush=True)
    print(bars_text_of(answers))
    if options.json is not None:
        options.json.write_text(json.dumps(document_of(machine, options.rounds, answers), indent=1) + "\n", "utf-8")


def _how_to_read(rounds: int) -> str:
    return f"medians of {rounds} rounds, ± half of the range; ratio: how many times as good replayflow is"


def _contestants(options: argparse.Namespace) -> list[contestants.Contestant]:
    in_turn = [contestants.replayflow()]
    if options.floor.exists():
        in_turn.append(contestants.floor(options.floor))
    else:
        print(f"no floor at {options.floor}: no ratios to it")
    if options.peers if options.peers is not None else not options.short:
        in_turn += contestants.peers()
    return in_turn


def _options() -> argparse.Namespace:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("questions", nargs="*", metavar="question", help=f"only these, of {', '.join(QUESTIONS)}")
    parser.add_argument("--short", action="store_true", help="smaller sizes")
    parser.add_argument("--n", type=int, nargs="+", help="these sizes instead of the questions' own")
    parser.add_argument("--rounds", type=_rounds, default=3, help="how often each is measured (3)")
    parser.add_argument(
        "--floor", type=Path, default=contestants.floor_path(), help="where it is; or $REPLAYFLOW_FLOOR"
    )
    parser.add_argument(
        "--peers", action=argparse.BooleanOptionalAction, help="measure the peers that are installed, or not"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured to a file")
    options = parser.parse_args()
    unknown = set(options.questions) - QUESTIONS.keys()
    if unknown:
        parser.error(f"no question {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    for name in options.questions or QUESTIONS:
        if options.n and min(options.n) < QUESTIONS[name].n_min:
            parser.error(f"n is {min(options.n)}; for {name} it is {QUESTIONS[name].n_min} or more")
    return options


def _rounds(text: str) -> int:
    rounds = int(text)
    if rounds < 1:
        raise argparse.ArgumentTypeError(f"{rounds} rounds measure nothing: it is 1 or more")
    return rounds


if __name__ == "__main__":
    main()
