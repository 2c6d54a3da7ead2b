# What callers hand over -> plain C columns. All Python code of theirs runs here, before SQLite is touched.

cdef extern from * nogil:
    """
    #if defined(__GNUC__) || defined(__clang__)
    #define fetch_early(address) __builtin_prefetch(address)
    #else
    #define fetch_early(address) ((void)(address))
    #endif
    """
    void fetch_early(const void* address)


cdef struct Text:
    const char* data        # NULL for a missing value
    int size


cdef class Column:
    """One column of a batch. ``stride`` 0 repeats a single value down all rows."""
    cdef readonly str name
    cdef readonly Py_ssize_t length
    cdef Py_ssize_t stride
    cdef object owner       # keeps the memory alive that the values point into

    cdef int bind(self, sqlite3_stmt* stmt, int index, Py_ssize_t row) noexcept nogil:
        """Bind the value of `row` without a copy: it must outlive the step. SQLite's result code."""
        return SQLITE_MISUSE

    cdef void give(self, sqlite3_context* context, Py_ssize_t row) noexcept nogil:
        """Answer with the value of `row`, likewise: it must last until the next row is asked for."""

    cdef void touch(self, Py_ssize_t far, Py_ssize_t near) noexcept nogil:
        """Ask memory for what says where the value of `far` is, and for the value of `near`."""


cdef class AnyTextColumn(Column):
    """Text, however it is kept."""

    cdef const Text* text(self, Py_ssize_t row, Text* room) noexcept nogil:
        """The value of `row`, perhaps in `room`."""
        return NULL

    cdef int bind(self, sqlite3_stmt* stmt, int index, Py_ssize_t row) noexcept nogil:
        cdef Text room
        cdef const Text* text = self.text(row, &room)
        if text.data == NULL:
            return sqlite3_bind_null(stmt, index)
        return sqlite3_bind_text(stmt, index, text.data, text.size, SQLITE_STATIC)

    cdef void give(self, sqlite3_context* context, Py_ssize_t row) noexcept nogil:
        cdef Text room
        cdef const Text* text = self.text(row, &room)
        if text.data == NULL:
            sqlite3_result_null(context)
        else:
            sqlite3_result_text(context, text.data, text.size, SQLITE_STATIC)


@cython.final
cdef class TextColumn(AnyTextColumn):
    cdef Text* values

    def __cinit__(self):
        self.values = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.values)

    cdef const Text* text(self, Py_ssize_t row, Text* room) noexcept nogil:
        return self.values + row * self.stride

    cdef void touch(self, Py_ssize_t far, Py_ssize_t near) noexcept nogil:
        cdef const Text* text = self.values + near * self.stride
        fetch_early(self.values + far * self.stride)
        if text.size:
            fetch_early(text.data)
            fetch_early(text.data + text.size - 1)


@cython.final
cdef class CodedColumn(AnyTextColumn):
    """Text as a number for each row: of a value of ``distinct``, which other columns may share."""
    cdef Distinct distinct
    cdef uint32_t* numbers
    cdef Py_ssize_t room

    def __cinit__(self):
        self.numbers = NULL
        self.room = 0

    def __dealloc__(self):
        PyMem_RawFree(self.numbers)

    cdef int reserve(self, Py_ssize_t rows) except -1:
        cdef Py_ssize_t room = max(rows, self.room + self.room // 4)
        cdef void* grown = PyMem_RawRealloc(self.numbers, room * sizeof(uint32_t))
        if grown == NULL:
            raise MemoryError()
        self.numbers, self.room = <uint32_t*> grown, room
        return 0

    cdef void release(self) noexcept:
        PyMem_RawFree(self.numbers)
        self.numbers = NULL
        self.length = self.room = 0

    cdef inline uint32_t number(self, Py_ssize_t row) noexcept nogil:
        return self.numbers[row * self.stride]

    cdef const Text* text(self, Py_ssize_t row, Text* room) noexcept nogil:
        cdef const Key* key = self.distinct.table.keys + self.number(row)
        room.data, room.size = key.data, key.size
        return room

    cdef void touch(self, Py_ssize_t far, Py_ssize_t near) noexcept nogil:
        fetch_early(self.numbers + far * self.stride)
        fetch_early(self.distinct.table.keys + self.number(near))


@cython.final
cdef class RealColumn(Column):
    cdef const double* values

    cdef int bind(self, sqlite3_stmt* stmt, int index, Py_ssize_t row) noexcept nogil:
        return sqlite3_bind_double(stmt, index, self.values[row * self.stride])

    cdef void give(self, sqlite3_context* context, Py_ssize_t row) noexcept nogil:
        sqlite3_result_double(context, self.values[row * self.stride])


cdef enum:
    LINE = 64               # bytes that memory sends at once
    MOST_TOUCHED = 2048     # beyond this the processor sees by itself where reading goes


@cython.final
cdef class VectorColumn(Column):
    """Rows of float32, scaled to unit norm one at a time as they are bound."""
    cdef const float** rows     # NULL where the row has no vector
    cdef double* norms          # 0 where it has none, or one without a direction
    cdef float* unit            # the row being bound
    cdef Py_ssize_t changed     # a row that is not what it was when it was measured, or -1
    cdef readonly Py_ssize_t width
    cdef readonly Py_ssize_t zeros

    def __cinit__(self):
        self.rows = NULL
        self.norms = NULL
        self.unit = NULL
        self.changed = -1

    def __dealloc__(self):
        PyMem_RawFree(self.rows)
        PyMem_RawFree(self.norms)
        PyMem_RawFree(self.unit)

    cdef int measure(self) except -1:
        """Find the norm of each row, once `rows` and `width` are set."""
        cdef Py_ssize_t row = 0
        self.norms = <double*> PyMem_RawMalloc(max(self.length, 1) * sizeof(double))
        self.unit = <float*> PyMem_RawMalloc(max(self.width, 1) * sizeof(float))
        if self.norms == NULL or self.unit == NULL:
            raise MemoryError()
        with nogil:
            for row in range(self.length):
                self.norms[row] = 0 if self.rows[row] == NULL else norm(self.rows[row], self.width)
                if self.norms[row] == INFINITY:
                    break
                self.zeros += self.norms[row] == 0 and self.rows[row] != NULL
        if self.length and self.norms[row] == INFINITY:
            raise not_finite(f"column {self.name!r}, row {row}", row)
        return 0

    cdef const float* unit_row(self, Py_ssize_t row) noexcept nogil:
        """The vector of a row, scaled; NULL if it has none, or has changed. It lasts until the next is asked for.

        The memory is the caller's, whose other threads run: what is written is looked at once more.
        """
        cdef const float* vector = self.rows[row]
        cdef double length = self.norms[row]
        cdef Py_ssize_t i
        if length == 0:
            return NULL
        if length == 1:
            memcpy(self.unit, vector, self.width * sizeof(float))
        else:
            for i in range(self.width):
                self.unit[i] = <float> (vector[i] / length)
        if not -1e-5 < norm(self.unit, self.width) - 1 < 1e-5:
            self.changed = row
            return NULL
        return self.unit

    cdef int require_unchanged(self) except -1:
        if self.changed >= 0:
            raise EmbeddingError(f"column {self.name!r}, row {self.changed}: the vector was changed while it was "
                                 f"being written; nothing was. Give a copy, or leave the array alone until then",
                                 row=self.changed, got="a changed array")
        return 0

    cdef int bind(self, sqlite3_stmt* stmt, int index, Py_ssize_t row) noexcept nogil:
        cdef const float* vector = self.unit_row(row)
        if vector == NULL:
            return sqlite3_bind_null(stmt, index) if self.changed < 0 else SQLITE_ABORT
        return sqlite3_bind_blob(stmt, index, vector, <int> (self.width * sizeof(float)), SQLITE_STATIC)

    cdef void give(self, sqlite3_context* context, Py_ssize_t row) noexcept nogil:
        cdef const float* vector = self.unit_row(row)
        if self.changed >= 0:
            sqlite3_result_error(context, "a vector was changed", -1)
        elif vector == NULL:
            sqlite3_result_null(context)
        else:
            sqlite3_result_blob(context, vector, <int> (self.width * sizeof(float)), SQLITE_STATIC)

    cdef void touch(self, Py_ssize_t far, Py_ssize_t near) noexcept nogil:
        cdef const char* vector = <const char*> self.rows[near]
        cdef Py_ssize_t i = 0, size = self.width * sizeof(float)
        size = size if size < MOST_TOUCHED else MOST_TOUCHED
        fetch_early(self.rows + far)
        fetch_early(self.norms + far)
        if vector != NULL:
            while i < size:
                fetch_early(vector + i)
                i += LINE


cdef double norm(const float* vector, Py_ssize_t width) noexcept nogil:
    """Euclidean norm in float64; infinite if any component is not finite.

    Exactly 1 where rounding the components to float32 cannot bring it nearer to 1.
    """
    cdef double s0 = 0, s1 = 0, s2 = 0, s3 = 0, sum
    cdef Py_ssize_t i = 0
    while i + 4 <= width:
        s0 += <double> vector[i] * vector[i]
        s1 += <double> vector[i + 1] * vector[i + 1]
        s2 += <double> vector[i + 2] * vector[i + 2]
        s3 += <double> vector[i + 3] * vector[i + 3]
        i += 4
    while i < width:
        s0 += <double> vector[i] * vector[i]
        i += 1
    sum = (s0 + s1) + (s2 + s3)
    if not isfinite(sum):
        return INFINITY
    return 1 if -2.4e-7 < sum - 1 < 2.4e-7 else sqrt(sum)


cdef object not_finite(str where, Py_ssize_t row):
    return EmbeddingError(f"{where}: NaN, infinity, or a number too large for float32", row=row,
                          got="not finite", want="finite float32")


cdef TextColumn empty_text_column(str name, Py_ssize_t rows, object owner):
    """A column of `rows` values, all to be filled in."""
    cdef TextColumn column = TextColumn.__new__(TextColumn)
    column.name = name
    column.stride = 1
    column.length = rows
    column.owner = owner
    column.values = <Text*> PyMem_RawMalloc(max(rows, 1) * sizeof(Text))
    if column.values == NULL:
        raise MemoryError()
    return column


cdef VectorColumn empty_vector_column(str name, Py_ssize_t rows, object owner):
    """A column of `rows` missing vectors."""
    cdef VectorColumn column = VectorColumn.__new__(VectorColumn)
    column.name = name
    column.stride = 1
    column.length = rows
    column.owner = owner
    column.rows = <const float**> PyMem_RawCalloc(max(rows, 1), sizeof(float*))
    if column.rows == NULL:
        raise MemoryError()
    return column


cdef list as_list(object values, str name):
    """A list of our own: nobody can change it under us."""
    if isinstance(values, numpy.ndarray):
        if values.ndim != 1:
            raise ColumnError(f"column {name!r}: an array of shape {values.shape}; give one dimension",
                              column=name)
        return values.tolist()
    if isinstance(values, (set, frozenset, dict)):
        raise ColumnError(f"column {name!r}: a {type(values).__name__} has no order of rows; give a sequence of values",
                          column=name)
    try:
        return list(values)
    except TypeError as error:
        raise ColumnError(f"column {name!r}: {type(values).__name__} is not a sequence of values",
                          column=name) from error


def text_column(str name not None, values, Py_ssize_t rows=-1, Py_ssize_t first=0):
    """A column of ``str | None``; a single ``str`` or ``None`` stands for all ``rows`` rows.

    Args:
        first: what errors call the first row.
    """
    cdef bint single = values is None or isinstance(values, str)
    cdef list items = [values] if single else as_list(values, name)
    cdef Py_ssize_t count = len(items), size, row
    cdef TextColumn column = empty_text_column(name, count, items)
    cdef object item
    if single:
        column.stride = 0
        column.length = rows
    for row in range(count):
        item = items[row]
        if item is None:
            column.values[row].data = NULL
            column.values[row].size = 0
            continue
        if not isinstance(item, str):
            raise ColumnError(f"column {name!r}, row {first + row}: {type(item).__name__} is not text; "
                              f"give str or None", column=name, row=first + row)
        try:
            column.values[row].data = PyUnicode_AsUTF8AndSize(item, &size)
        except UnicodeEncodeError as error:
            raise text_error(name, first + row, "holds a lone surrogate, which is not text") from error
        if size > 0x7FFFFFFF:
            raise text_error(name, first + row, f"is {size} bytes long; 2 GiB is the most SQLite holds")
        column.values[row].size = <int> size
    return column


cdef object text_error(str name, Py_ssize_t row, str what):
    cls = InvalidIdError if name in ("id", "source", "target") else ColumnError
    return cls(f"column {name!r}, row {row}: {what}", column=name, row=row)


def real_column(str name not None, values, Py_ssize_t rows=-1):
    """A column of finite floats from numbers or an array; a single number stands for all rows."""
    cdef RealColumn column = RealColumn.__new__(RealColumn)
    cdef const double[::1] view
    cdef Py_ssize_t row
    cdef bint single = isinstance(values, numbers.Real)
    if isinstance(values, numpy.ndarray) and values.ndim == 1 and values.dtype.kind in "fiu" and not is_masked(values):
        array = numpy.array(values, dtype=numpy.float64)    # a copy: other threads may write to theirs
    else:
        array = numbers_of([values] if single else as_list(values, name), name)
    view = array
    for row in range(view.shape[0]):
        if not isfinite(view[row]):
            raise ColumnError(f"column {name!r}, row {row}: {view[row]} is not a finite number",
                              column=name, row=row)
    column.name = name
    column.stride = 0 if single else 1
    column.length = rows if single else view.shape[0]
    column.owner = array
    column.values = &view[0] if view.shape[0] else NULL
    return column


cdef object numbers_of(list items, str name):
    cdef Py_ssize_t row
    for row, item in enumerate(items):
        if not isinstance(item, float) and not isinstance(item, numbers.Real):
            raise ColumnError(f"column {name!r}, row {row}: {type(item).__name__} is not a number",
                              column=name, row=row)
    try:
        return numpy.array(items, dtype=numpy.float64)
    except OverflowError as error:
        raise ColumnError(f"column {name!r}: {error}", column=name) from error


def as_vectors(values, Py_ssize_t width=-1, str name="embedding"):
    """``values`` as a C-contiguous (n, d) float32 array in native byte order; a copy only if needed.

    Raises:
        EmbeddingError: not numeric, not two-dimensional, or not of the ``width`` asked for. Bytes are
            refused: they do not say what they hold.
    """
    if isinstance(values, (bytes, bytearray, str)):
        raise EmbeddingError(f"column {name!r}: {type(values).__name__} has no dtype; give an array "
                             f"(numpy.frombuffer(data, 'f4'))", got=type(values).__name__,
                             want="float array")
    if is_masked(values):
        raise EmbeddingError(f"column {name!r}: values are masked; give None for a vector that is missing",
                             got="masked values", want="finite float32")
    try:
        array = numpy.asarray(values)
    except (TypeError, ValueError) as error:
        raise EmbeddingError(f"column {name!r}: rows of different widths, or not numbers ({error})",
                             want="(n, d) float array") from error
    if array.dtype.kind not in "fiu":
        raise EmbeddingError(f"column {name!r}: dtype {array.dtype} is not a number that float32 "
                             f"can hold", got=str(array.dtype), want="float32")
    if array.ndim != 2:
        raise EmbeddingError(f"column {name!r}: shape {array.shape}; give (rows, dimensions)",
                             got=array.shape, want="(n, d)")
    if width >= 0 and array.shape[1] != width and array.shape[0]:
        raise EmbeddingError(f"column {name!r}, row 0: {array.shape[1]} dimensions, but the space "
                             f"has {width}", row=0, got=array.shape[1], want=width)
    if array.shape[1] == 0 and array.shape[0]:
        raise EmbeddingError(f"column {name!r}: vectors without dimensions", got=array.shape,
                             want="(n, d)")
    with numpy.errstate(over="ignore"):
        return numpy.ascontiguousarray(array, dtype=numpy.float32)


cdef bint is_masked(object values) except -1:
    """Whether some are masked: made a plain array, they would be what stands beneath the mask."""
    return type(values) is not numpy.ndarray and isinstance(values, numpy.ndarray) \
        and isinstance(values, numpy.ma.MaskedArray) and numpy.ma.is_masked(values)


def vector_column(str name not None, values, Py_ssize_t width=-1):
    """A column of vectors: (n, d) numbers, or a sequence of vectors and ``None``.

    Rows of zeros have no direction: like ``None`` they are stored as NULL, and counted in ``zeros``.

    Raises:
        EmbeddingError: naming the first row that is not finite or has another width than ``width``.
    """
    cdef VectorColumn column
    cdef const float[:, ::1] view
    cdef const float[::1] vector
    cdef Py_ssize_t row
    if isinstance(values, numpy.ndarray) and values.shape == (0,):
        values = []     # which is what NumPy makes an array of no vectors from
    if not isinstance(values, (bytes, bytearray, str, memoryview, numpy.ndarray)) \
            and not hasattr(values, "__array__"):
        values = as_list(values, name)
        if not values or any([item is None or is_masked(item) for item in values]):
            return sparse_vectors(name, values, width)
        try:
            view = as_vectors(values, width, name)
        except EmbeddingError:
            sparse_vectors(name, values, width)     # slower, but says which row it is
            raise
    else:
        view = as_vectors(values, width, name)
    column = empty_vector_column(name, view.shape[0], view)
    column.width = view.shape[1]
    for row in range(column.length if column.width else 0):
        column.rows[row] = &view[row, 0]
    column.measure()
    return column


cdef VectorColumn sparse_vectors(str name, list items, Py_ssize_t width):
    """A column of a list in which vectors are missing."""
    cdef VectorColumn column
    cdef const float[::1] vector
    cdef Py_ssize_t row
    held = []
    column = empty_vector_column(name, len(items), held)
    for row, item in enumerate(items):
        if item is None:
            continue
        why = why_no_vector(item)
        if why is not None:
            raise EmbeddingError(f"column {name!r}, row {row}: {why}", row=row,
                                 got=type(item).__name__, want="(d,) numbers")
        array = as_vectors(numpy.asarray(item)[None], -1, name)
        if width < 0:
            width = array.shape[1]
        if array.shape[1] != width:
            raise width_error(name, row, array.shape[1], width)
        vector = array[0]
        held.append(vector)
        column.rows[row] = &vector[0]
    column.width = max(width, 0)
    column.measure()
    return column


cdef str why_no_vector(object item):
    """What is wrong with a vector on its own; None if nothing is."""
    if is_masked(item):
        return "values are masked"
    try:
        array = numpy.asarray(item)
    except (TypeError, ValueError) as error:
        return str(error)
    if array.dtype.kind not in "fiu":
        return f"dtype {array.dtype} is not a number that float32 can hold"
    if array.ndim != 1 or not array.size:
        return f"shape {array.shape}; give (dimensions,)"
    return None
