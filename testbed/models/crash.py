"""A model that takes the runtime down, made from one that does not."""

import signal
import subprocess
import sys

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

ATTEMPTS = 5


def without_shape(model):
    """The model with the shape of its reshape operator left out.

    An operator may leave an optional input out by naming tensor -1, so the file
    is well-formed. LiteRT 2.3.0 compiles it, follows the null pointer at the
    first run and dies, whatever kernels it was told to use.
    """
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model, 0))
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in tree.operatorCodes]
    reshape = next(o for o in tree.subgraphs[0].operators
                   if codes[o.opcodeIndex] == schema.BuiltinOperator.RESHAPE)
    reshape.inputs = [reshape.inputs[0], -1]
    builder = flatbuffers.Builder(len(model) * 2)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def deaths(path):
    """How often of ATTEMPTS a process of its own dies of a signal at the model's first run."""
    code = ("import sys; from ai_edge_litert.compiled_model import CompiledModel; "
            "m = CompiledModel.from_buffer(open(sys.argv[1], 'rb').read()); "
            "m.run_by_index(0, m.create_input_buffers(0), m.create_output_buffers(0))")
    died = 0
    for _ in range(ATTEMPTS):
        child = subprocess.run([sys.executable, "-c", code, path], capture_output=True, timeout=60, check=False)
        died += child.returncode in (-signal.SIGSEGV, -signal.SIGABRT)
    return died
