# cython: language_level=3, binding=True, embedsignature=True, freethreading_compatible=False
# cython: auto_pickle=False, autotestdict=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Resonance's core: SQLite's C API, bound once.

The parts, in the order they build on each other:

    errors       result code -> exception: one table, one way to raise
    handle       owns the sqlite3*; guards every entry against misuse
    statement    owns a sqlite3_stmt*; binds values, reads rows
    connection   what Python code talks to
    columns      Python sequences and arrays -> plain C columns, before SQLite is touched
    arrow        Arrow streams -> the same columns, straight from their buffers
    feed         rows of such columns as a table that one statement reads
    graph        bulk nodes and edges from those columns: a plan, then writing
    vectors      rows -> matrices and scores
    codes        rows -> int8 codes that stay in memory
    scan         which of them may be among the nearest to some queries
    records      codes and rows in a file beside the database
    export       rows -> the buffers of Arrow columns
    words        texts as the index of words is given them
    outline      a markdown parser's events -> where things stand in a note
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE, PyBytes_FromStringAndSize
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS, PyBUF_C_CONTIGUOUS, PyBUF_FORMAT, PyBuffer_FillInfo, PyBuffer_Release,
    PyObject_CheckBuffer, PyObject_GetBuffer,
)
from cpython.dict cimport PyDict_Next
from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock, PyThread_release_lock,
    PyThread_type_lock, WAIT_LOCK,
)
from cpython.mem cimport PyMem_RawCalloc, PyMem_RawFree, PyMem_RawMalloc, PyMem_RawRealloc
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cpython.ref cimport Py_INCREF, PyObject
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.errno cimport ENOMEM
from libc.math cimport INFINITY, fabs, isfinite, lrint, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport qsort
from libc.string cimport memchr, memcmp, memcpy, memset

from sqlite3 cimport *

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* size) except NULL
    object PyType_GenericAlloc(type kind, Py_ssize_t items)
    void PyObject_GC_UnTrack(object made)
    int PyGC_Disable()
    int PyGC_Enable()
    void PyTuple_SET_ITEM(object made, Py_ssize_t item, object value)
    Py_ssize_t PyUnicode_GET_LENGTH(object text)
    int PyUnicode_KIND(object text)
    void* PyUnicode_DATA(object text)
    Py_UCS4 PyUnicode_MAX_CHAR_VALUE(object text)
    str PyUnicode_New(Py_ssize_t size, Py_UCS4 maximum)

cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident()

cdef extern from "unistd.h" nogil:
    int getpid()

cdef extern from "pthread.h" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept,
                       void (*child)() noexcept)

cdef extern from *:
    """
    #ifndef RESONANCE_ENGINE_BUNDLED
    #define RESONANCE_ENGINE_BUNDLED 0
    #endif
    #ifndef RESONANCE_ENGINE_ORIGIN
    #define RESONANCE_ENGINE_ORIGIN "system"
    #endif
    #define TUPLES_HAVE_MORE (PY_VERSION_HEX >= 0x030E0000) /* than their items, since Python 3.14 */
    #if SQLITE_VERSION_NUMBER >= 3038000
    #define resonance_error_offset sqlite3_error_offset
    #else
    #define resonance_error_offset(db) (-1)
    #endif
    """
    const bint RESONANCE_ENGINE_BUNDLED
    const char* RESONANCE_ENGINE_ORIGIN
    int resonance_error_offset(sqlite3* db) nogil
    const int SQLITE_VERSION_NUMBER
    const bint TUPLES_HAVE_MORE

import numbers
import os
import re
import threading
import weakref
from collections import OrderedDict

import numpy

from resonance import errors
from resonance.errors import (
    BusyError, CannotOpenError, ClosedError, ColumnError, ConcurrentUseError, ConstraintError,
    CorruptDatabaseError, CorruptRowError, DanglingEdgeError, DiskFullError, DuplicateNodeError,
    EmbeddingError, ForeignKeyError, ForkedConnectionError, InterruptedStorageError,
    InvalidIdError, NotADatabaseError, ReadOnlyError, ReentrancyError, SQLError, StorageError,
    StorageIOError, StorageMemoryError, TooBigError, TransactionError,
)

include "errors.pxi"
include "handle.pxi"
include "statement.pxi"
include "connection.pxi"
include "keys.pxi"
include "columns.pxi"
include "arrow.pxi"
include "feed.pxi"
include "graph.pxi"
include "vectors.pxi"
include "texts.pxi"
include "codes.pxi"
include "scan.pxi"
include "records.pxi"
include "export.pxi"
include "words.pxi"
include "outline.pxi"
