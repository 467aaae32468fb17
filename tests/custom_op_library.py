"""A library of one custom operator, compiled by the C compiler that is here.

``test.ops`` ``Step`` adds a number to each element of a float tensor. The Python package of ONNX Runtime has
no C headers. What this needs of the API are a few functions by their place in ``OrtApi``, which never changes
(onnxruntime_c_api.h: functions are only ever added at its end).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

__all__ = ["DOMAIN", "library", "model"]

DOMAIN = "test.ops"

_SOURCE = """
#include <stddef.h>
#include <stdint.h>

/* Indices into OrtApi. */
enum { CREATE_STATUS = 0, CREATE_DOMAIN = 26, DOMAIN_ADD = 27, ADD_DOMAIN = 28, DATA = 51, COUNT = 61,
       DIMENSIONS = 62, ELEMENTS = 64, SHAPE = 65, INPUT = 90, OUTPUT = 91, RELEASE_SHAPE = 99 };
typedef void *(*Function)();
struct Base { const Function *(*api)(uint32_t); const char *(*version)(void); };
static const Function *api;

static void *create(const void *op, const void *a, const void *info) { return (void *)op; }
static const char *name(const void *op) { return "Step"; }
static const char *provider(const void *op) { return NULL; }
static int type(const void *op, size_t index) { return 1; }
static size_t one(const void *op) { return 1; }
static int required(const void *op, size_t index) { return 0; }
static int positive(const void *op) { return 1; }
static void destroy(void *kernel) {}

static void compute(void *kernel, void *context) {
    const void *x; void *y, *shape; float *from, *to; size_t rank, count; int64_t sizes[8];
    api[INPUT](context, (size_t)0, &x);
    api[SHAPE](x, &shape);
    api[COUNT](shape, &rank);
    api[DIMENSIONS](shape, sizes, rank);
    api[ELEMENTS](shape, &count);
    api[RELEASE_SHAPE](shape);
    api[OUTPUT](context, (size_t)0, sizes, rank, &y);
    api[DATA](x, &from);
    api[DATA](y, &to);
    for (size_t i = 0; i < count; i++) to[i] = from[i] + (float)STEP;
}

/* OrtCustomOp as it is in API version 14. */
static struct {
    uint32_t version;
    void *(*create)(const void *, const void *, const void *);
    const char *(*name)(const void *), *(*provider)(const void *);
    int (*input)(const void *, size_t); size_t (*inputs)(const void *);
    int (*output)(const void *, size_t); size_t (*outputs)(const void *);
    void (*compute)(void *, void *), (*destroy)(void *);
    int (*input_is)(const void *, size_t), (*output_is)(const void *, size_t);
    int (*memory)(const void *, size_t);
    int (*variadic[4])(const void *);
} op = {14, create, name, provider, type, one, type, one, compute, destroy, required, required, required,
        {positive, positive, positive, positive}};

void *RegisterCustomOps(void *options, const struct Base *base) {
    void *domain = NULL;
    api = base->api(14);
    BEFORE
    api[CREATE_DOMAIN](NAME, &domain);
    api[DOMAIN_ADD](domain, &op);
    return api[ADD_DOMAIN](options, domain);
}
"""


def library(folder: Path, *, step: float = 1.0, domain: str = DOMAIN, before: str = "") -> Path:
    """A new library in `folder`; the test is skipped where there is no C compiler.

    Args:
        folder: that takes it.
        step: what its operator adds.
        domain: of its operator.
        before: C that runs before it is registered.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    path = folder / "libstep.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-w", "-x", "c", "-", "-o", str(path)]
    command += [f"-DSTEP={step}", f'-DNAME="{domain}"', f"-DBEFORE={before}"]
    subprocess.run(command, input=_SOURCE, text=True, check=True)
    return path


def model(path: Path, *, domain: str = DOMAIN, operator: str = "Step") -> Path:
    """A model that computes ``y = Relu(Step(x) + x)``, written to `path`."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy")
    nodes = [
        helper.make_node(operator, ["x"], ["stepped"], domain=domain),
        helper.make_node("Add", ["stepped", "x"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
