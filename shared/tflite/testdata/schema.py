"""Writes schema.txt: what the .tflite schema of the installed ai_edge_litert says
about the layout of every table, read from its generated accessors.

    python schema.py > ../schema.txt        # made with ai_edge_litert 2.3.0
"""
import re
import sys

import ai_edge_litert.schema_py_generated as s

WIDTH = {"Bool": 1, "Int8": 1, "Uint8": 1, "Int16": 2, "Uint16": 2, "Int32": 4, "Uint32": 4, "Float32": 4,
         "Int64": 8, "Uint64": 8, "Float64": 8}
UNIONS = {"BuiltinOptions": s.BuiltinOptions, "BuiltinOptions2": s.BuiltinOptions2,
          "QuantizationDetails": s.QuantizationDetails, "SparseIndexVector": s.SparseIndexVector}
# Which union a field holds; the accessors do not tell.
UNION_OF = {("QuantizationParameters", "Details"): "QuantizationDetails",
            ("DimensionMetadata", "ArraySegments"): "SparseIndexVector",
            ("DimensionMetadata", "ArrayIndices"): "SparseIndexVector",
            ("Operator", "BuiltinOptions"): "BuiltinOptions", ("Operator", "BuiltinOptions2"): "BuiltinOptions2"}


def kind(table, name, body):
    if "_tab.Union(" in body:
        return "|" + UNION_OF[table, name]
    vector = "_tab.Vector(" in body
    if made := re.search(r"obj = (\w+)\(\)", body):
        return ("[" if vector else "") + made.group(1)
    if "_tab.String(" in body:
        return ("[" if vector else "") + "s"
    flags = re.search(r"_tab\.Get\(flatbuffers\.number_types\.(\w+)Flags", body).group(1)
    return ("[" if vector else "") + str(WIDTH[flags])


source = open(s.__file__).read()
tables = {}
for match in re.finditer(r"^class (\w+)\(object\):\n    __slots__ = \['_tab'\]\n(.*?)(?=^class |^def |\Z)", source, re.S | re.M):
    name, text = match.groups()
    fields = {}
    for m in re.finditer(r"    def (\w+)\(self(?:, j)?\):\n(.*?)(?=\n    # |\Z)", text, re.S):
        offset = re.search(r"_tab\.Offset\((\d+)\)", m.group(2))
        if offset and not re.search(r".(AsNumpy|Length|IsNone)$", m.group(1)):
            fields[(int(offset.group(1)) - 4) // 2] = kind(name, m.group(1), m.group(2))
    last = max(fields, default=-1)
    tables[name] = [fields.get(i, "-") for i in range(last + 1)]
for name in sorted(tables):
    print(name, *tables[name])
for name, enum in UNIONS.items():
    members = {v: k for k, v in vars(enum).items() if isinstance(v, int)}
    print("|" + name, *[members[i] for i in range(1, max(members) + 1)])
