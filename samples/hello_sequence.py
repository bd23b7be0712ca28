"""Three activities in a row, each with the result of the one before at hand.

    python -m samples.hello_sequence [STORE]

Stop it anywhere, with Ctrl-C or kill -9, and run it again: a city that was greeted is not greeted twice, and when all is done the
result is simply there.
"""

import sys

from replayflow import App, Orchestration, OrchestrationContext, run

app = App()


@app.activity
def say_hello(city: str) -> str:
    print(f"  saying hello to {city}")
    return f"Hello {city}!"


@app.orchestrator
def hello_sequence(ctx: OrchestrationContext) -> Orchestration[list[str]]:
    first = yield from ctx.call_activity(say_hello, "Tokyo")
    second = yield from ctx.call_activity(say_hello, "Seattle")
    third = yield from ctx.call_activity(say_hello, "London")
    return [first, second, third]


def main(store: str = "hello_sequence.db") -> None:
    for greeting in run(hello_sequence, store=store):
        print(greeting)


if __name__ == "__main__":
    main(*sys.argv[1:])
