# Keys of rows: sorted, made distinct, numbered. No database here.

cdef struct Key:
    uint64_t prefix         # eight bytes, big-endian, of the depth that sorting went to
    const char* data
    int size
    uint32_t row


cdef int compare_keys(const void* left, const void* right) noexcept nogil:
    """The order of SQLite's BINARY collation: bytes, then length; equal keys by row."""
    cdef const Key* a = <const Key*> left
    cdef const Key* b = <const Key*> right
    cdef int order
    if a.prefix != b.prefix:
        return -1 if a.prefix < b.prefix else 1
    order = memcmp(a.data, b.data, a.size if a.size < b.size else b.size)
    if order == 0:
        order = (a.size > b.size) - (a.size < b.size)
    if order == 0:
        order = (a.row > b.row) - (a.row < b.row)
    return order


cdef int compare_prefixes(const void* left, const void* right) noexcept nogil:
    cdef const Key* a = <const Key*> left
    cdef const Key* b = <const Key*> right
    if a.prefix != b.prefix:
        return -1 if a.prefix < b.prefix else 1
    if a.size != b.size:
        return -1 if a.size < b.size else 1
    return (a.row > b.row) - (a.row < b.row)


cdef inline uint64_t prefix_of(const char* data, int size) noexcept nogil:
    cdef uint64_t prefix = 0
    cdef int i
    for i in range(8):
        prefix = (prefix << 8) | (<uint8_t> data[i] if i < size else 0)
    return prefix


cdef enum:
    DEEPEST = 64            # bytes that keys may share before they are compared whole


cdef void sort_keys(Key* keys, Py_ssize_t count, int depth) noexcept nogil:
    """Sort keys that are equal up to `depth`, and no shorter: by the next eight bytes, then run by run.

    Comparing eight bytes at hand leaves the caches alone; each text is touched once a step, in order.
    """
    cdef Py_ssize_t start = 0, stop, longer
    if depth >= DEEPEST:
        qsort(keys, count, sizeof(Key), compare_keys)
        return
    for stop in range(count):
        keys[stop].prefix = prefix_of(keys[stop].data + depth, keys[stop].size - depth)
    qsort(keys, count, sizeof(Key), compare_prefixes)
    while start < count:
        stop = start + 1
        while stop < count and keys[stop].prefix == keys[start].prefix:
            stop += 1
        # Those that end within the eight bytes are sorted by now, and come before those that go on.
        longer = start
        while longer < stop and keys[longer].size <= depth + 8:
            longer += 1
        if stop - longer > 1:
            sort_keys(keys + longer, stop - longer, depth + 8)
        start = stop


cdef inline bint same_key(const Key* a, const Key* b) noexcept nogil:
    return a.prefix == b.prefix and a.size == b.size and memcmp(a.data, b.data, a.size) == 0


cdef inline uint64_t hash_of(const char* data, int size) noexcept nogil:
    """FNV-1a over words of eight bytes, with a final mix: http://www.isthe.com/chongo/tech/comp/fnv/"""
    cdef uint64_t h = 0xCBF29CE484222325ULL ^ <uint64_t> size, word
    while size >= 8:
        memcpy(&word, data, 8)
        h = (h ^ word) * 0x100000001B3ULL
        h ^= h >> 29
        data += 8
        size -= 8
    while size > 0:
        h = (h ^ <uint8_t> data[0]) * 0x100000001B3ULL
        data += 1
        size -= 1
    h ^= h >> 32
    return h * 0x9E3779B97F4A7C15ULL


@cython.final
cdef class Distinct:
    """The distinct values of some columns in sorted order, and for each row the rank of its value.

    Row ``r`` of the ``c``-th column has number ``c * rows + r``.
    """
    cdef Key* keys          # rank -> value; `row` is the first that holds it
    cdef uint32_t* ranks    # row -> rank
    cdef Py_ssize_t count

    def __cinit__(self):
        self.keys = NULL
        self.ranks = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.keys)
        PyMem_RawFree(self.ranks)

    cdef int build(self, list columns) except -1:
        cdef Py_ssize_t rows = sum([(<Column> each).length for each in columns])
        cdef TextColumn column
        cdef Py_ssize_t start = 0
        cdef int failed = 0
        if rows >= 0xFFFFFFFF:
            raise ColumnError(f"{rows} values in one batch; give fewer than 2^32")
        self.ranks = <uint32_t*> PyMem_RawMalloc(max(rows, 1) * sizeof(uint32_t))
        if self.ranks == NULL:
            raise MemoryError()
        cdef Table table
        table.slots, table.keys, table.size, table.count, table.room = NULL, NULL, 0, 0, 0
        try:
            for column in columns:
                with nogil:
                    failed = number_values(&table, column.values, column.stride, column.length,
                                           self.ranks, <uint32_t> start)
                if failed:
                    raise MemoryError()
                start += column.length
            self.keys, table.keys = table.keys, NULL
            self.count = table.count
            with nogil:
                failed = sort_ranks(self.keys, self.count, self.ranks, rows)
            if failed:
                raise MemoryError()
        finally:
            PyMem_RawFree(table.slots)
            PyMem_RawFree(table.keys)
        return 0


cdef struct Table:
    uint32_t* slots         # number of a value + 1, or 0; open addressing
    uint64_t size           # a power of two
    Key* keys
    Py_ssize_t count
    Py_ssize_t room


cdef int number_values(Table* table, const Text* values, Py_ssize_t stride, Py_ssize_t count,
                       uint32_t* numbers, uint32_t start) noexcept nogil:
    """Give each distinct value a number, in order of first appearance; -1 without memory."""
    cdef Py_ssize_t i
    cdef const Text* text
    cdef uint64_t slot
    cdef uint32_t number
    cdef Key* key
    for i in range(count):
        if i and stride == 0:
            numbers[start + i] = numbers[start]
            continue
        if <uint64_t> (2 * table.count) >= table.size and grow_table(table) < 0:
            return -1
        text = values + i * stride
        slot = hash_of(text.data, text.size) & (table.size - 1)
        while True:
            number = table.slots[slot]
            if number == 0:
                key = table.keys + table.count
                key.prefix = prefix_of(text.data, text.size)
                key.data = text.data
                key.size = text.size
                key.row = start + <uint32_t> i
                table.count += 1
                number = table.slots[slot] = <uint32_t> table.count
                break
            key = table.keys + number - 1
            if key.size == text.size and memcmp(key.data, text.data, text.size) == 0:
                break
            slot = (slot + 1) & (table.size - 1)
        numbers[start + i] = number - 1
    return 0


cdef int grow_table(Table* table) noexcept nogil:
    """Room for twice as many values; -1 without memory."""
    cdef uint64_t size = 1024 if table.size == 0 else 2 * table.size
    cdef uint64_t slot
    cdef Py_ssize_t number
    cdef uint32_t* slots
    cdef void* keys = PyMem_RawRealloc(table.keys, (size // 2 + 1) * sizeof(Key))
    if keys == NULL:
        return -1
    table.keys = <Key*> keys
    slots = <uint32_t*> PyMem_RawCalloc(size, sizeof(uint32_t))
    if slots == NULL:
        return -1
    for number in range(table.count):
        slot = hash_of(table.keys[number].data, table.keys[number].size) & (size - 1)
        while slots[slot]:
            slot = (slot + 1) & (size - 1)
        slots[slot] = <uint32_t> (number + 1)
    PyMem_RawFree(table.slots)
    table.slots = slots
    table.size = size
    return 0


cdef int sort_ranks(Key* keys, Py_ssize_t count, uint32_t* numbers, Py_ssize_t rows) noexcept nogil:
    """Sort the distinct values, and turn each row's number into a rank; -1 without memory."""
    cdef uint32_t* rank_of = <uint32_t*> PyMem_RawMalloc(max(count, 1) * sizeof(uint32_t))
    cdef uint32_t* first = <uint32_t*> PyMem_RawMalloc(max(count, 1) * sizeof(uint32_t))
    cdef Py_ssize_t i
    if rank_of == NULL or first == NULL:
        PyMem_RawFree(rank_of)
        PyMem_RawFree(first)
        return -1
    for i in range(count):
        first[i] = keys[i].row
        keys[i].row = <uint32_t> i
    sort_keys(keys, count, 0)
    for i in range(count):
        rank_of[keys[i].row] = <uint32_t> i
        keys[i].row = first[keys[i].row]
    for i in range(rows):
        numbers[i] = rank_of[numbers[i]]
    PyMem_RawFree(rank_of)
    PyMem_RawFree(first)
    return 0
