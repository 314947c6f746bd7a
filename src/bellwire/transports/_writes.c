/* One write to each of many descriptors, at a stretch: what write_all in descriptor.py says, and does in Python.

   A call of os.write costs 0.3 µs beside the kernel's work. Here it is the kernel's work, and other threads may run
   meanwhile. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000 /* one library for Python 3.11 and all that follow */
#include <Python.h>
#include <unistd.h>

typedef struct {
    int descriptor;
    Py_ssize_t taken;
    Py_buffer piece;
} Write;

/* Fill in the first of count writes; return how many are filled in, fewer if an exception is set. */
static Py_ssize_t prepare(Write *writes, Py_ssize_t count, PyObject *descriptors, PyObject *pieces)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        long descriptor = PyLong_AsLong(PyList_GetItem(descriptors, at));
        if (!PyErr_Occurred() && descriptor != (int)descriptor)
            PyErr_Format(PyExc_OverflowError, "%ld is no descriptor", descriptor);
        if (PyErr_Occurred() || PyObject_GetBuffer(PyList_GetItem(pieces, at), &writes[at].piece, PyBUF_SIMPLE) < 0)
            return at;
        writes[at].descriptor = (int)descriptor;
    }
    return count;
}

static void perform(Write *writes, Py_ssize_t count)
{
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t at = 0; at < count; at++) {
        ssize_t taken = write(writes[at].descriptor, writes[at].piece.buf, writes[at].piece.len);
        writes[at].taken = taken < 0 ? 0 : taken;
    }
    Py_END_ALLOW_THREADS
}

static PyObject *taken_of(const Write *writes, Py_ssize_t count)
{
    PyObject *made = PyList_New(count);
    for (Py_ssize_t at = 0; made != NULL && at < count; at++) {
        PyObject *taken = PyLong_FromSsize_t(writes[at].taken);
        if (taken == NULL || PyList_SetItem(made, at, taken) < 0)
            Py_CLEAR(made);
    }
    return made;
}

/* What write_all does with lists that nobody else has: as long as these are there, so is what is in them. */
static PyObject *write_lists(PyObject *descriptors, PyObject *pieces)
{
    PyObject *made = NULL;
    Py_ssize_t count = PyList_Size(descriptors);
    if (PyList_Size(pieces) != count)
        return PyErr_Format(PyExc_ValueError, "%zd pieces for %zd descriptors", PyList_Size(pieces), count);
    Write *writes = PyMem_Malloc(count * sizeof *writes);
    if (writes == NULL)
        return PyErr_NoMemory();
    Py_ssize_t prepared = prepare(writes, count, descriptors, pieces);
    if (prepared == count) {
        perform(writes, count);
        made = taken_of(writes, count);
    }
    for (Py_ssize_t at = 0; at < prepared; at++)
        PyBuffer_Release(&writes[at].piece);
    PyMem_Free(writes);
    return made;
}

static PyObject *write_all(PyObject *module, PyObject *arguments)
{
    PyObject *descriptors, *pieces, *made = NULL;
    if (!PyArg_ParseTuple(arguments, "OO", &descriptors, &pieces))
        return NULL;
    descriptors = PySequence_List(descriptors);
    if (descriptors == NULL)
        return NULL;
    pieces = PySequence_List(pieces);
    if (pieces != NULL)
        made = write_lists(descriptors, pieces);
    Py_DECREF(descriptors);
    Py_XDECREF(pieces);
    return made;
}

static PyMethodDef functions[] = {
    {"write_all", write_all, METH_VARARGS, "Write to each descriptor its piece; return how much of each was taken."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_writes",
    .m_doc = "One write to each of many descriptors.",
    .m_methods = functions,
};

PyMODINIT_FUNC PyInit__writes(void)
{
    return PyModuleDef_Init(&module);
}
