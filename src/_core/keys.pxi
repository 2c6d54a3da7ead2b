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
    if count < 2:
        return
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


cdef struct Table:
    uint32_t* slots         # number of a value + 1, or 0; open addressing
    uint64_t size           # a power of two
    Key* keys               # in order of first appearance, until they are sorted
    Py_ssize_t count
    char* block             # the last of the blocks that hold their text; each begins with the one before it
    size_t used             # of that block
    size_t room


cdef enum:
    TEXT_BLOCK = 1 << 20


@cython.final
cdef class Distinct:
    """The distinct values of some columns, with text of its own; ``sort`` turns their numbers into ranks."""
    cdef Table table
    cdef bint sorted

    def __cinit__(self):
        memset(&self.table, 0, sizeof(Table))
        self.sorted = False

    def __dealloc__(self):
        cdef char* before
        PyMem_RawFree(self.table.slots)
        PyMem_RawFree(self.table.keys)
        while self.table.block != NULL:
            memcpy(&before, self.table.block, sizeof(before))
            PyMem_RawFree(self.table.block)
            self.table.block = before

    def column(self, str name not None, chunks):
        """A column of ids as numbers of these values.

        Args:
            chunks: TextColumns, one after the other; a single value repeated must be the only one.

        Raises:
            InvalidIdError: a value is missing, empty, or holds a NUL.
            ColumnError: a plan has been made of these values, which gives out no more numbers.
        """
        cdef CodedColumn column = CodedColumn.__new__(CodedColumn)
        cdef TextColumn chunk
        cdef Py_ssize_t values
        cdef int failed
        column.name = name
        column.stride = 1
        column.distinct = self
        for chunk in chunks:
            if self.sorted:
                raise ColumnError(f"{name}: these values are sorted for a plan already; begin with a new Distinct",
                                  column=name)
            check_ids(chunk, column.length)
            if column.length + chunk.length >= 0xFFFFFFFF:
                raise ColumnError(f"{column.length + chunk.length} rows in one batch; give fewer than 2^32")
            values = chunk.length if chunk.stride else min(chunk.length, 1)
            if column.length + values > column.room:
                column.reserve(column.length + values)
            with nogil:
                failed = number_values(&self.table, chunk.values, values, column.numbers + column.length)
            if failed:
                raise MemoryError()
            column.stride = chunk.stride
            column.length += chunk.length
        return column

    cdef int sort(self, list columns) except -1:
        """Sort the values; the numbers in these columns, all there are, become ranks."""
        cdef uint32_t* rank_of = <uint32_t*> PyMem_RawMalloc(max(self.table.count, 1) * sizeof(uint32_t))
        cdef CodedColumn column
        cdef Py_ssize_t i
        if rank_of == NULL:
            raise MemoryError()
        self.sorted = True
        PyMem_RawFree(self.table.slots)     # numbers are given out no more
        self.table.slots = NULL
        with nogil:
            for i in range(self.table.count):
                self.table.keys[i].row = <uint32_t> i
            sort_keys(self.table.keys, self.table.count, 0)
            for i in range(self.table.count):
                rank_of[self.table.keys[i].row] = <uint32_t> i
        for column in columns:
            with nogil:
                for i in range(column.length if column.stride else min(column.length, 1)):
                    column.numbers[i] = rank_of[column.numbers[i]]
        PyMem_RawFree(rank_of)
        return 0


cdef int number_values(Table* table, const Text* values, Py_ssize_t count, uint32_t* numbers) noexcept nogil:
    """Give each distinct value a number, in order of first appearance; -1 without memory."""
    cdef Py_ssize_t i
    cdef const Text* text
    cdef uint64_t slot
    cdef uint32_t number
    cdef Key* key
    for i in range(count):
        if <uint64_t> (2 * table.count) >= table.size and grow_table(table) < 0:
            return -1
        text = values + i
        slot = hash_of(text.data, text.size) & (table.size - 1)
        while True:
            number = table.slots[slot]
            if number == 0:
                key = table.keys + table.count
                key.data = keep_text(table, text)
                if key.data == NULL:
                    return -1
                key.size = text.size
                table.count += 1
                number = table.slots[slot] = <uint32_t> table.count
                break
            key = table.keys + number - 1
            if key.size == text.size and memcmp(key.data, text.data, text.size) == 0:
                break
            slot = (slot + 1) & (table.size - 1)
        numbers[i] = number - 1
    return 0


cdef const char* keep_text(Table* table, const Text* text) noexcept nogil:
    """A copy that lasts as long as the table; NULL without memory."""
    cdef size_t size = <size_t> text.size
    cdef char* block
    if table.room - table.used < size:
        table.room = max(<size_t> TEXT_BLOCK, size + sizeof(block))
        block = <char*> PyMem_RawMalloc(table.room)
        if block == NULL:
            table.room = table.used = 0
            return NULL
        memcpy(block, &table.block, sizeof(block))
        table.block, table.used = block, sizeof(block)
    block = table.block + table.used
    memcpy(block, text.data, size)
    table.used += size
    return block


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


cdef void sort_by_number(const uint32_t* rows, uint32_t* sorted, Py_ssize_t count, const uint32_t* numbers,
                         uint32_t* starts, Py_ssize_t distinct) noexcept nogil:
    """Rows in the order of their numbers; those with the same number stay in the order they have.

    `starts` is room for `distinct` of them.
    """
    cdef Py_ssize_t i
    cdef uint32_t start = 0, held
    memset(starts, 0, distinct * sizeof(uint32_t))
    for i in range(count):
        starts[numbers[rows[i]]] += 1
    for i in range(distinct):
        held = starts[i]
        starts[i] = start
        start += held
    for i in range(count):
        sorted[starts[numbers[rows[i]]]] = rows[i]
        starts[numbers[rows[i]]] += 1
