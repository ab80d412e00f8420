"""The runtime as Python programs use it.

As a program: interpreter.py MODEL runs the model once for each line on standard
input, on the same numbers, and prints the microseconds that took.
"""

import sys
import time

import numpy as np
from ai_edge_litert.interpreter import Interpreter


class Model:
    def __init__(self, path, threads=1):
        self.interpreter = Interpreter(path, num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.outputs = self.interpreter.get_output_details()

    def run(self, array):
        self.interpreter.set_tensor(self.input["index"], array)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(o["index"]) for o in self.outputs]


def main():
    model = Model(sys.argv[1])
    array = np.zeros(model.input["shape"], model.input["dtype"])
    model.run(array)
    print("ready", flush=True)
    for _ in sys.stdin:
        began = time.perf_counter_ns()
        model.run(array)
        print((time.perf_counter_ns() - began) / 1000, flush=True)


if __name__ == "__main__":
    main()
