"""
An update of 8 tasks and the adaptation to one sentence, alone and beside busy processes; with threads that
sleep while they wait as long as there are others (`allennlp_metaner/idle_threads.py`), and as OpenMP waits by
itself.

    python benchmarks/contention.py [--busy 2] [--rounds 3]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

HIDDEN, LAYERS, VOCABULARY = 384, 12, 30_000
NUM_TASKS, LENGTH = 8, 19
# GNU's OpenMP spins so long by default. With this set, the package leaves its threads as they are.
SPINNING = {"GOMP_SPINCOUNT": "300000"}


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Beside so many processes that compute without end."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def measure(num_busy: int, rounds: int) -> dict[str, list[float]]:
    """Seconds a round: wall time alone, wall time beside busy processes, and CPU time."""
    from random_models import random_tagger, random_tasks

    from allennlp_metaner.meta.meta_gradients import FirstOrderMaml
    from allennlp_metaner.meta.test_time_adaptation import TestTimeAdaptation
    from allennlp_metaner.nn.parameters import trainable_parameters
    from allennlp_metaner.training.fused_adam import FusedAdam

    model, tasks = random_tagger(HIDDEN, LAYERS, VOCABULARY), random_tasks(NUM_TASKS, LENGTH)
    parameters, algorithm = trainable_parameters(model), FirstOrderMaml()
    optimizer = FusedAdam(parameters, lr=3e-5)

    def update() -> None:
        model.train()
        _, gradient = algorithm(model, parameters, tasks, seed=0)
        for (_, parameter), own in zip(parameters, gradient, strict=True):
            parameter.grad = own
        optimizer.step()

    def label() -> None:
        TestTimeAdaptation().predict(model.eval(), tasks[:1])

    found = {}
    for name, work in (("update", update), ("sentence", label)):
        work()
        alone, used = timed(work, rounds)
        with busy(num_busy):
            found[name] = [alone, timed(work, rounds)[0], used]
    return found


def timed(work: Callable[[], None], rounds: int) -> tuple[float, float]:
    walls, used = [], time.process_time()
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        walls.append(time.perf_counter() - start)
    return median(walls), (time.process_time() - used) / rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--busy", type=int, default=2, help="so many other processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="the median of so many (default: 3)")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.busy, arguments.rounds)))
        return
    print(f"| threads that wait | work | alone | beside {arguments.busy} busy processes | CPU time |")
    print("|---|---|---|---|---|")
    for threads, environment in (("sleep beside others", {}), ("spin always", SPINNING)):
        command = [sys.executable, __file__, *sys.argv[1:], "--measure"]
        output = subprocess.run(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True
        )
        for work, seconds in json.loads(output.stdout.splitlines()[-1]).items():
            print("|", " | ".join([threads, work, *(f"{value:.2f} s" for value in seconds)]), "|", flush=True)


if __name__ == "__main__":
    main()
