"""The questions, one a module, in the order in which they are asked."""

from benchmarks.question import Question
from benchmarks.questions import (
    chain,
    children,
    disk,
    dormant,
    entities,
    events,
    fan,
    finding,
    idle,
    latency,
    load,
    long,
    maps,
    memory,
    payload,
    recover,
    threads,
)

_MODULES = (
    *(chain, fan, maps, latency, load, long),
    *(recover, dormant, events, children, entities, threads, payload),
    *(idle, memory, finding, disk),
)
QUESTIONS: dict[str, Question] = {module.QUESTION.name: module.QUESTION for module in _MODULES}
