# Arrow streams -> columns, straight from their buffers: no Python object for a row.
# https://arrow.apache.org/docs/format/CDataInterface.html and CStreamInterface.html

cdef extern from * nogil:
    """
    #include <stdint.h>
    #ifndef ARROW_C_DATA_INTERFACE
    #define ARROW_C_DATA_INTERFACE
    struct ArrowSchema {
        const char *format, *name, *metadata;
        int64_t flags, n_children;
        struct ArrowSchema **children, *dictionary;
        void (*release)(struct ArrowSchema *);
        void *private_data;
    };
    struct ArrowArray {
        int64_t length, null_count, offset, n_buffers, n_children;
        const void **buffers;
        struct ArrowArray **children, *dictionary;
        void (*release)(struct ArrowArray *);
        void *private_data;
    };
    #endif
    #ifndef ARROW_C_STREAM_INTERFACE
    #define ARROW_C_STREAM_INTERFACE
    struct ArrowArrayStream {
        int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *);
        int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *);
        const char *(*get_last_error)(struct ArrowArrayStream *);
        void (*release)(struct ArrowArrayStream *);
        void *private_data;
    };
    #endif
    """
    struct ArrowSchema:
        const char* format
        const char* name
        int64_t n_children
        ArrowSchema** children
        ArrowSchema* dictionary
        void (*release)(ArrowSchema*) noexcept

    struct ArrowArray:
        int64_t length
        int64_t null_count
        int64_t offset
        int64_t n_buffers
        int64_t n_children
        const void** buffers
        ArrowArray** children
        ArrowArray* dictionary
        void (*release)(ArrowArray*) noexcept

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream*, ArrowSchema*) noexcept nogil
        int (*get_next)(ArrowArrayStream*, ArrowArray*) noexcept nogil
        const char* (*get_last_error)(ArrowArrayStream*) noexcept
        void (*release)(ArrowArrayStream*) noexcept


cdef enum:
    TEXTS_AT_ONCE = 65536


@cython.final
cdef class ArrowTable:
    """The record batches of one stream, held until the columns over them are done with."""
    cdef ArrowSchema schema
    cdef ArrowArray* batches
    cdef readonly Py_ssize_t batch_count
    cdef readonly Py_ssize_t length

    def __cinit__(self):
        self.schema.release = NULL
        self.batches = NULL

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.batch_count):
            if self.batches[i].release != NULL:
                self.batches[i].release(&self.batches[i])
        PyMem_RawFree(self.batches)
        if self.schema.release != NULL:
            self.schema.release(&self.schema)

    def __init__(self, source):
        capsule = source.__arrow_c_stream__()
        cdef ArrowArrayStream* stream
        cdef Py_ssize_t capacity = 0
        cdef void* grown
        cdef int rc
        if not PyCapsule_IsValid(capsule, "arrow_array_stream"):
            raise ColumnError(f"{type(source).__name__}.__arrow_c_stream__() returned no Arrow stream")
        stream = <ArrowArrayStream*> PyCapsule_GetPointer(capsule, "arrow_array_stream")
        if stream.release == NULL:
            raise ColumnError("the Arrow stream has been read already; ask for a new one")
        with nogil:
            rc = stream.get_schema(stream, &self.schema)
        self.check(stream, rc)
        if <bytes> self.schema.format != b"+s":
            raise ColumnError("the Arrow stream is not a table: it has no named columns")
        while True:
            if self.batch_count == capacity:
                capacity = max(8, 2 * capacity)
                grown = PyMem_RawRealloc(self.batches, capacity * sizeof(ArrowArray))
                if grown == NULL:
                    raise MemoryError()
                self.batches = <ArrowArray*> grown
            self.batches[self.batch_count].release = NULL
            with nogil:
                rc = stream.get_next(stream, &self.batches[self.batch_count])
            self.check(stream, rc)
            if self.batches[self.batch_count].release == NULL:
                break
            self.batch_count += 1
            self.require_rows(&self.batches[self.batch_count - 1])
            self.length += self.batches[self.batch_count - 1].length
        stream.release(stream)

    cdef int require_rows(self, const ArrowArray* batch) except -1:
        """A batch may be an array of structs, of which some are null whatever their fields hold."""
        cdef Py_ssize_t row
        if batch.null_count == 0:
            return 0
        for row in range(batch.length):
            if not arrow_valid(batch, batch.offset + row):
                raise ColumnError(f"row {self.length + row}: null; give a row, or leave it out",
                                  row=self.length + row)
        return 0

    cdef int check(self, ArrowArrayStream* stream, int rc) except -1:
        cdef const char* words
        if rc != 0:
            words = stream.get_last_error(stream)
            why = words.decode("utf-8", "replace") if words != NULL else os.strerror(rc)
            raise ColumnError(f"the Arrow stream failed after {self.length} rows: {why}")
        return 0

    @property
    def names(self):
        """Names of the columns; a column need not have one."""
        cdef const char* name
        names = []
        for i in range(self.schema.n_children):
            name = self.schema.children[i].name
            try:
                names.append("" if name == NULL else name.decode())
            except UnicodeDecodeError as error:
                raise ColumnError(f"the name of column {i} of the Arrow data is not UTF-8: {<bytes> name!r}") from error
        return names

    def text(self, str name):
        """A column of strings as a TextColumn."""
        cdef TextColumn column = empty_text_column(name, self.length, self)
        cdef Py_ssize_t batch, done = 0
        for batch in range(self.batch_count):
            self.fill(name, batch, 0, self.batches[batch].length, done, column.values + done)
            done += self.batches[batch].length
        return column

    def texts(self, str name):
        """The same as TextColumns of a part each: of a record batch with a dictionary, or of fewer rows."""
        cdef TextColumn column
        cdef Py_ssize_t batch, start, rows, done = 0, most = TEXTS_AT_ONCE
        if self.schema.children[self.names.index(name)].dictionary != NULL:
            most = self.length      # it is decoded as a whole, so once is enough
        for batch in range(self.batch_count):
            start = 0
            while start < self.batches[batch].length:
                rows = min(most, self.batches[batch].length - start)
                column = empty_text_column(name, rows, self)
                self.fill(name, batch, start, rows, done, column.values)
                start += rows
                done += rows
                yield column

    cdef int fill(self, str name, Py_ssize_t batch, Py_ssize_t start, Py_ssize_t rows, Py_ssize_t first,
                  Text* values) except -1:
        """Point `values` at `rows` of a batch from `start` on; errors call the first of them `first`."""
        cdef Py_ssize_t index = self.names.index(name), bad
        cdef ArrowSchema* schema = self.schema.children[index]
        with nogil:
            bad = arrow_text(schema, self.batches[batch].children[index], self.batches[batch].offset + start,
                             rows, values)
        if bad == -2:
            raise arrow_type_error(name, schema, "text (string, large_string, string_view, "
                                   "binary or a dictionary of one)")
        if bad == -3:
            raise MemoryError()
        if bad >= 0:
            raise text_error(name, first + bad, "is not UTF-8, or longer than 2 GiB")
        return 0

    def real(self, str name):
        """A column of numbers as a RealColumn."""
        cdef Py_ssize_t index = self.names.index(name), batch, done = 0, row
        cdef ArrowSchema* schema = self.schema.children[index]
        values = numpy.empty(self.length, dtype=numpy.float64)
        cdef double[::1] view = values
        cdef ArrowArray* array
        cdef int64_t position
        cdef int found
        for batch in range(self.batch_count):
            array = self.batches[batch].children[index]
            for row in range(self.batches[batch].length):
                position = array.offset + self.batches[batch].offset + row
                found = arrow_real(schema, array, position, &view[done + row])
                if found > 0:
                    raise ColumnError(f"column {name!r}, row {done + row}: null; give a number",
                                      column=name, row=done + row)
                if found < 0:
                    raise arrow_type_error(name, schema, "integers, float32 or float64, or a dictionary of one")
            done += self.batches[batch].length
        return real_column(name, values)

    def vectors(self, str name, Py_ssize_t width=-1):
        """A column of fixed-size lists (or lists of one length) of floats as a VectorColumn."""
        cdef Py_ssize_t index = self.names.index(name), batch, done = 0, row, start, size
        cdef ArrowSchema* schema = self.schema.children[index]
        cdef ArrowArray* array
        cdef ArrowArray* child
        cdef const float* base
        cdef VectorColumn column
        cdef int64_t position, element
        cdef bint fixed = schema.format[:3] == b"+w:"
        if <bytes> schema.format == b"n":
            column = empty_vector_column(name, self.length, self)
            column.width = max(width, 0)
            column.measure()
            return column
        if not fixed and schema.format[:2] not in (b"+l", b"+L"):
            raise arrow_type_error(name, schema, "lists of float32")
        if schema.children[0].format[0] not in b"fge":
            raise arrow_type_error(name, schema.children[0], "lists of float32, float64 or float16")
        if fixed:
            found = int(schema.format[3:])
            if width >= 0 and found != width:
                raise width_error(name, 0, found, width)
            width = found
        kind = {b"f": numpy.float32, b"g": numpy.float64, b"e": numpy.float16}[schema.children[0].format[:1]]
        column = empty_vector_column(name, self.length, self)
        converted = []
        for batch in range(self.batch_count):
            array = self.batches[batch].children[index]
            child = array.children[0]
            base = <const float*> child.buffers[1]
            if kind is not numpy.float32:
                count = (child.offset + child.length) * numpy.dtype(kind).itemsize
                with numpy.errstate(over="ignore"):
                    values = numpy.frombuffer(
                        <const uint8_t[:max(count, 1)]> <uint8_t*> child.buffers[1], numpy.uint8, count
                    ).view(kind).astype(numpy.float32)
                converted.append(values)
                base = <const float*> <size_t> values.ctypes.data
            for row in range(self.batches[batch].length):
                position = array.offset + self.batches[batch].offset + row
                if not arrow_valid(array, position):
                    continue
                if fixed:
                    start, size = position * width, width
                elif schema.format[1] == b"l":
                    start = (<const int32_t*> array.buffers[1])[position]
                    size = (<const int32_t*> array.buffers[1])[position + 1] - start
                else:
                    start = (<const int64_t*> array.buffers[1])[position]
                    size = (<const int64_t*> array.buffers[1])[position + 1] - start
                if width < 0:
                    width = size
                if size != width or width == 0:
                    raise width_error(name, done + row, size, width)
                start += child.offset
                if child.null_count != 0:
                    for element in range(start, start + size):
                        if not arrow_valid(child, element):
                            raise EmbeddingError(f"column {name!r}, row {done + row}: a null inside the "
                                                 f"vector", row=done + row, want="finite float32")
                column.rows[done + row] = base + start
            done += self.batches[batch].length
        column.owner = (self, converted)
        column.width = max(width, 0)
        column.measure()
        return column


cdef object width_error(str name, Py_ssize_t row, Py_ssize_t found, Py_ssize_t width):
    return EmbeddingError(f"column {name!r}, row {row}: {found} dimensions, but the space has {width}",
                          row=row, got=found, want=width)


cdef object arrow_type_error(str name, ArrowSchema* schema, str want):
    cls = EmbeddingError if name == "embedding" else ColumnError
    return cls(f"column {name!r}: Arrow type {schema.format.decode()!r}; give {want}", column=name)


cdef inline bint is_union(const ArrowSchema* schema) noexcept nogil:
    """Whether its first buffer says which value a row has, not whether it has one."""
    return schema.format[0] == b"+" and schema.format[1] == b"u"


cdef inline bint arrow_valid(const ArrowArray* array, int64_t position) noexcept nogil:
    cdef const uint8_t* bits = <const uint8_t*> array.buffers[0] if array.n_buffers else NULL
    return bits == NULL or (bits[position >> 3] >> (position & 7)) & 1


cdef int arrow_number(char kind, const void* data, int64_t position, double* out) noexcept nogil:
    if kind == b"g":
        out[0] = (<const double*> data)[position]
    elif kind == b"f":
        out[0] = (<const float*> data)[position]
    elif kind == b"l":
        out[0] = <double> (<const int64_t*> data)[position]
    elif kind == b"i":
        out[0] = (<const int32_t*> data)[position]
    elif kind == b"c":
        out[0] = (<const signed char*> data)[position]
    elif kind == b"C":
        out[0] = (<const uint8_t*> data)[position]
    elif kind == b"s":
        out[0] = (<const short*> data)[position]
    elif kind == b"S":
        out[0] = (<const unsigned short*> data)[position]
    elif kind == b"I":
        out[0] = (<const uint32_t*> data)[position]
    elif kind == b"L":
        out[0] = <double> (<const uint64_t*> data)[position]
    else:
        return -1
    return 0


cdef int arrow_real(const ArrowSchema* schema, const ArrowArray* array, int64_t position, double* out) noexcept nogil:
    """The number at a position of the buffers: 0, or 1 for a null, or -1 for what is no number."""
    cdef int64_t index
    if is_union(schema):
        return -1
    if schema.format[0] == b"n" or not arrow_valid(array, position):
        return 1
    if schema.dictionary != NULL:
        index = arrow_index(schema.format[0], array.buffers[1], position)
        if not 0 <= index < array.dictionary.length:
            return -1
        return arrow_real(schema.dictionary, array.dictionary, array.dictionary.offset + index, out)
    return arrow_number(schema.format[0], array.buffers[1], position, out)


cdef int64_t arrow_index(char kind, const void* data, int64_t position) noexcept nogil:
    """A dictionary index of any width; -1 for a type that cannot be one."""
    if kind == b"c":
        return (<const signed char*> data)[position]
    if kind == b"C":
        return (<const uint8_t*> data)[position]
    if kind == b"s":
        return (<const short*> data)[position]
    if kind == b"S":
        return (<const unsigned short*> data)[position]
    if kind == b"i":
        return (<const int32_t*> data)[position]
    if kind == b"I":
        return (<const uint32_t*> data)[position]
    if kind == b"l" or kind == b"L":
        return (<const int64_t*> data)[position]
    return -1


cdef const char EMPTY = 0


cdef Py_ssize_t arrow_text(ArrowSchema* schema, ArrowArray* array, int64_t skip, int64_t length,
                           Text* out) noexcept nogil:
    """Point `out` at the strings of rows skip .. skip + length.

    Returns -1, or the first row that is not UTF-8, or -2 for another type, -3 without memory.
    """
    cdef int64_t row, position, index
    cdef int64_t start, size
    cdef const char* data
    cdef const char* format = schema.format
    cdef const int32_t* view
    cdef Text* values
    cdef Py_ssize_t bad
    if is_union(schema):
        return -2
    if schema.dictionary != NULL:
        values = <Text*> PyMem_RawMalloc(max(array.dictionary.length, 1) * sizeof(Text))
        if values == NULL:
            return -3
        bad = arrow_text(schema.dictionary, array.dictionary, 0, array.dictionary.length, values)
        if bad == -1:
            for row in range(length):
                position = array.offset + skip + row
                out[row].data, out[row].size = NULL, 0
                if arrow_valid(array, position):
                    index = arrow_index(format[0], array.buffers[1], position)
                    if index < 0 or index >= array.dictionary.length:
                        bad = row
                        break
                    out[row] = values[index]
        elif bad >= 0:
            bad = 0
        PyMem_RawFree(values)
        return bad
    for row in range(length):
        position = array.offset + skip + row
        out[row].data, out[row].size = NULL, 0
        if format[0] == b"n" or not arrow_valid(array, position):
            continue
        if format[0] == b"u" or format[0] == b"z":
            start = (<const int32_t*> array.buffers[1])[position]
            size = (<const int32_t*> array.buffers[1])[position + 1] - start
            data = <const char*> array.buffers[2] + start
        elif format[0] == b"U" or format[0] == b"Z":
            start = (<const int64_t*> array.buffers[1])[position]
            size = (<const int64_t*> array.buffers[1])[position + 1] - start
            data = <const char*> array.buffers[2] + start
        elif format[0] == b"v":
            # A view: length, then the bytes themselves if they fit, else prefix, buffer, offset.
            view = <const int32_t*> array.buffers[1] + 4 * position
            size = view[0]
            data = <const char*> (view + 1) if size <= 12 \
                else <const char*> array.buffers[2 + view[2]] + view[3]
        else:
            return -2
        if size > 0x7FFFFFFF or not valid_utf8(data, size):
            return row
        # An empty string may come with a NULL buffer; NULL would mean a missing value.
        out[row].data = data if size else &EMPTY
        out[row].size = <int> size
    return -1


cdef bint valid_utf8(const char* text, int64_t size) noexcept nogil:
    """RFC 3629: shortest form, no surrogates, up to U+10FFFF."""
    cdef const uint8_t* s = <const uint8_t*> text
    cdef int64_t i = 0
    cdef uint64_t eight
    cdef uint8_t c
    while i < size:
        while i + 8 <= size:
            memcpy(&eight, s + i, 8)
            if eight & 0x8080808080808080ULL:
                break
            i += 8
        if i >= size:
            return True
        c = s[i]
        if c < 0x80:
            i += 1
        elif 0xC2 <= c <= 0xDF and i + 1 < size and s[i + 1] & 0xC0 == 0x80:
            i += 2
        elif c & 0xF0 == 0xE0 and i + 2 < size and s[i + 1] & 0xC0 == 0x80 and s[i + 2] & 0xC0 == 0x80 \
                and not (c == 0xE0 and s[i + 1] < 0xA0) and not (c == 0xED and s[i + 1] > 0x9F):
            i += 3
        elif 0xF0 <= c <= 0xF4 and i + 3 < size and s[i + 1] & 0xC0 == 0x80 \
                and s[i + 2] & 0xC0 == 0x80 and s[i + 3] & 0xC0 == 0x80 \
                and not (c == 0xF0 and s[i + 1] < 0x90) and not (c == 0xF4 and s[i + 1] > 0x8F):
            i += 4
        else:
            return False
    return True
