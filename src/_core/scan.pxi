# One pass over codes: which rows may be among the k best for some queries.

cdef struct Found:
    int64_t position
    float low
    float high


# Rows times queries; some tens of milliseconds.
cdef enum: ROWS_BETWEEN_SIGNAL_CHECKS = 8_000_000


@cython.final
cdef class Scan:
    """One pass over codes for some queries: for each a heap of the k best lower bounds, and what may beat it."""
    cdef Parts parts
    cdef Py_ssize_t number       # queries
    cdef Py_ssize_t width
    cdef Py_ssize_t k
    cdef size_t stride
    cdef int8_t* codes           # of the queries, `stride` bytes each, padded to a multiple of QUERIES
    cdef float* whole            # the queries themselves, `width` each
    cdef float* scale            # of each query
    cdef float* slack            # that its own codes cost, rounding included
    cdef int32_t* shift          # rows are stored plus 128
    cdef float* threshold        # a row below is not among the k best
    cdef float* heaps            # the smallest of the k best lower bounds on top
    cdef Py_ssize_t* sizes       # of the heaps
    cdef void** kept             # for each query an Arena of Found: rows that passed
    cdef list arenas
    cdef const uint8_t* dead
    cdef float most              # a row above is not looked for
    cdef float surely            # a row that may lie above cannot vouch for what is among the k best
    cdef float rounding          # of sums with the whole query
    cdef Py_ssize_t since_signals
    cdef void* memory

    def __cinit__(self):
        self.memory = NULL
        self.codes = NULL
        self.heaps = NULL
        self.since_signals = 0

    def __dealloc__(self):
        free(self.codes)
        PyMem_RawFree(self.heaps)
        PyMem_RawFree(self.memory)

    cdef int prepare(self, Codes rows, const double[:, ::1] queries, Py_ssize_t k, Py_ssize_t count, double least,
                     double most) except -1:
        cdef Py_ssize_t q, number = queries.shape[0]
        cdef Py_ssize_t padded = (number + QUERIES - 1) // QUERIES * QUERIES
        cdef void* memory = NULL
        self.parts = parts_of(rows, count)
        self.number, self.width, self.stride = number, rows.width, rows.stride
        self.k = min(k, max(count, 1))
        if posix_memalign(&memory, 64, padded * self.stride) != 0:
            raise MemoryError()
        self.codes = <int8_t*> memory
        memset(self.codes, 0, padded * self.stride)
        self.heaps = <float*> PyMem_RawMalloc(number * self.k * sizeof(float))
        self.memory = PyMem_RawCalloc(number, sizeof(void*) + sizeof(Py_ssize_t) + 3 * sizeof(float)
                                      + sizeof(int32_t) + self.width * sizeof(float))
        if self.heaps == NULL or self.memory == NULL:
            raise MemoryError()
        self.kept = <void**> self.memory
        self.sizes = <Py_ssize_t*> (self.kept + number)
        self.scale = <float*> (self.sizes + number)
        self.slack = self.scale + number
        self.threshold = self.slack + number
        self.shift = <int32_t*> (self.threshold + number)
        self.whole = <float*> (self.shift + number)
        self.most = <float> most + ROUNDING if most < INFINITY else INFINITY
        self.surely = <float> most - ROUNDING if most < INFINITY else INFINITY
        # Each of LANES float32 sums may be off by as many roundings as it has terms.
        self.rounding = rows.norm * (ROUNDING + 6e-8 * (self.width // LANES + 8))
        self.arenas = [Arena.__new__(Arena) for q in range(number)]
        for q in range(number):
            self.kept[q] = <void*> self.arenas[q]
            self.threshold[q] = <float> (least - ROUNDING) if least > -INFINITY else -INFINITY
            self.encode(q, &queries[q, 0], rows.norm)
        return 0

    cdef int encode(self, Py_ssize_t q, const double* query, float norm) except -1:
        cdef double largest = 0, lost = 0, difference
        cdef Py_ssize_t i
        cdef int code
        cdef float s
        for i in range(self.width):
            largest = max(largest, fabs(query[i]))
            self.whole[q * self.width + i] = <float> query[i]
        if not largest <= 1.0001:
            raise EmbeddingError(f"query {q} is not of unit length", row=q)
        s = <float> (largest / 127)
        for i in range(self.width):
            code = <int> lrint(query[i] / s) if s > 0 else 0
            code = min(max(code, -127), 127)
            self.codes[q * self.stride + i] = <int8_t> code
            self.shift[q] += 128 * code
            difference = query[i] - <double> code * s
            lost += difference * difference
        self.scale[q] = s
        self.slack[q] = <float> (norm * (sqrt(lost) * 1.000001 + ROUNDING))
        return 0

    cdef int all_rows(self) except -1:
        cdef const Part* part
        cdef Py_ssize_t i, start, rows
        cdef int failed = 0
        with nogil:
            for i in range(self.parts.count):
                part = &self.parts.parts[i]
                start = 0
                while start < part.count and not failed:
                    rows = min(<Py_ssize_t> TILE, part.count - start)
                    failed = self.tile(part.codes + start * self.stride, part.scale + start, part.error + start,
                                       NULL, part.start + start, rows)
                    start += rows
                if not failed and self.is_time_for_signals(part.count):
                    with gil:
                        PyErr_CheckSignals()
        if failed:
            raise MemoryError()
        return 0

    cdef int some_rows(self, const int64_t* positions, Py_ssize_t total) except -1:
        """The rows wanted are gathered into tiles; gathering costs little beside waiting for them."""
        cdef const Part* part = NULL
        cdef const Part* later
        cdef Py_ssize_t i = 0, n, at
        cdef void* memory = NULL
        cdef float scale[256]   # TILE
        cdef float error[256]
        cdef uint8_t* gathered
        cdef int failed = 0
        if posix_memalign(&memory, 64, TILE * self.stride) != 0:
            raise MemoryError()
        gathered = <uint8_t*> memory
        try:
            with nogil:
                while i < total and not failed:
                    n = 0
                    while n < TILE and i + n < total:
                        if i + n + AHEAD < total:
                            later = self.parts.holding(positions[i + n + AHEAD], part)
                            ask_for(later, positions[i + n + AHEAD] - later.start, self.stride)
                        part = self.parts.holding(positions[i + n], part)
                        at = positions[i + n] - part.start
                        memcpy(gathered + n * self.stride, part.codes + at * self.stride, self.stride)
                        scale[n] = part.scale[at]
                        error[n] = part.error[at]
                        n += 1
                    failed = self.tile(gathered, scale, error, positions + i, 0, n)
                    i += n
                    if not failed and self.is_time_for_signals(n):
                        with gil:
                            PyErr_CheckSignals()
        finally:
            free(memory)
        if failed:
            raise MemoryError()
        return 0

    cdef bint is_time_for_signals(self, Py_ssize_t rows) noexcept nogil:
        """Looking for them takes the GIL, for which another thread may let this one wait."""
        self.since_signals += rows * self.number
        if self.since_signals < ROWS_BETWEEN_SIGNAL_CHECKS:
            return False
        self.since_signals = 0
        return True

    cdef int tile(self, const uint8_t* codes, const float* scale, const float* error,
                  const int64_t* positions, Py_ssize_t start, Py_ssize_t rows) noexcept nogil:
        cdef int32_t sums[4 * 256]      # QUERIES * TILE
        cdef float middle[256]
        cdef uint32_t passed[256]
        cdef Py_ssize_t q = 0, each, together
        cdef size_t n
        while q < self.number:
            together = min(<Py_ssize_t> QUERIES, self.number - q)
            if together == 1:
                score_one(codes, self.stride, rows, self.codes + q * self.stride, sums)
            else:
                score_many(codes, self.stride, rows, self.codes + q * self.stride, sums, TILE)
            for each in range(q, q + together):
                n = rows_that_pass(sums + (each - q) * TILE, scale, error, rows, self.scale[each],
                                   self.shift[each], self.slack[each], self.threshold[each], middle, passed)
                if n and self.keep(each, n, passed, middle, error, positions, start) < 0:
                    return -1
            q += together
        return 0

    cdef int keep(self, Py_ssize_t q, size_t n, const uint32_t* passed, const float* middle, const float* error,
                  const int64_t* positions, Py_ssize_t start) noexcept nogil:
        cdef Found row
        cdef float reach
        cdef size_t i
        cdef float* heap = self.heaps + q * self.k
        for i in range(n):
            reach = error[passed[i]] + self.slack[q]
            row.position = positions[passed[i]] if positions != NULL else <int64_t> (start + passed[i])
            row.low = middle[passed[i]] - reach
            row.high = middle[passed[i]] + reach
            if row.high < self.threshold[q] or row.low > self.most \
                    or (self.dead != NULL and self.dead[row.position]):
                continue
            if (<Arena> self.kept[q]).append(&row, sizeof(Found)) < 0:
                return -1
            if row.high <= self.surely:
                heap_offer(heap, &self.sizes[q], self.k, row.low)
                if self.sizes[q] == self.k and heap[0] > self.threshold[q]:
                    self.threshold[q] = heap[0]
        return 0

    cdef int look_again(self) except -1:
        """Bounds of what is left by the whole query, which its codes do not widen; fewer are left then."""
        cdef Py_ssize_t q
        with nogil:
            for q in range(self.number):
                self.narrow(q)
        return 0

    cdef void narrow(self, Py_ssize_t q) noexcept nogil:
        cdef Found* rows = <Found*> (<Arena> self.kept[q]).data
        cdef Found row
        cdef const Part* part = NULL
        cdef const Part* later = NULL
        cdef Py_ssize_t i, n = 0, at, total = 0
        cdef float middle, reach
        self.sizes[q] = 0
        for i in range((<Arena> self.kept[q]).size // <Py_ssize_t> sizeof(Found)):
            if rows[i].high >= self.threshold[q]:
                rows[total] = rows[i]
                total += 1
        for i in range(total):
            row = rows[i]
            if i + AHEAD < total:
                later = self.parts.holding(rows[i + AHEAD].position, later)
                ask_for(later, rows[i + AHEAD].position - later.start, self.stride)
            part = self.parts.holding(row.position, part)
            at = row.position - part.start
            middle = <float> (precise_sum(part.codes + at * self.stride, self.whole + q * self.width, self.width)
                              * part.scale[at])
            reach = part.error[at] + self.rounding
            row.low = max(row.low, middle - reach)
            row.high = min(row.high, middle + reach)
            if row.high <= self.surely:
                heap_offer(self.heaps + q * self.k, &self.sizes[q], self.k, row.low)
            rows[n] = row
            n += 1
        (<Arena> self.kept[q]).size = n * sizeof(Found)
        if self.sizes[q] == self.k:
            self.threshold[q] = max(self.threshold[q], self.heaps[q * self.k])

    cdef tuple found(self, Py_ssize_t q):
        """What is above the threshold now that it is final."""
        cdef Arena kept = self.arenas[q]
        rows = kept.array(numpy.dtype([("position", numpy.int64), ("low", numpy.float32), ("high", numpy.float32)]))
        rows = rows[rows["high"] >= self.threshold[q]]
        return tuple(numpy.ascontiguousarray(rows[name]) for name in ("position", "low", "high"))


cdef inline void ask_for(const Part* part, Py_ssize_t row, size_t stride) noexcept nogil:
    """Have the memory of a row on its way."""
    cdef size_t i = 0
    while i < stride:
        fetch_early(part.codes + row * stride + i)
        i += LINE
    fetch_early(&part.scale[row])
    fetch_early(&part.error[row])
