# Bulk rows from columns: planned as a whole without the database, then written in key order.

cdef int check_ids(TextColumn column, Py_ssize_t first=0) except -1:
    """Ids are there, not empty, and hold no NUL; errors call the first row `first`."""
    cdef Py_ssize_t row, rows = column.length if column.stride else min(column.length, 1)
    cdef const Text* text = NULL
    cdef bint bad = False
    with nogil:
        for row in range(rows):
            text = column.values + row
            if text.data == NULL or text.size == 0 or memchr(text.data, 0, text.size) != NULL:
                bad = True
                break
    if bad and text.data == NULL:
        raise text_error(column.name, first + row, "is missing; every row needs one")
    if bad:
        raise text_error(column.name, first + row,
                         "is empty" if text.size == 0 else "holds a NUL character")
    return 0


cdef int check_lengths(list columns) except -1:
    cdef Column first = columns[0], column
    for column in columns:
        if column.length != first.length:
            raise ColumnError(f"column {column.name!r} has {column.length} rows, but column "
                              f"{first.name!r} has {first.length}", column=column.name)
    return 0


cdef str text_of(AnyTextColumn column, Py_ssize_t row):
    cdef Text room
    cdef const Text* text = column.text(row, &room)
    return text.data[:text.size].decode()


cdef enum:
    MOST_NESTED = 100       # brackets in brackets, and
    MOST_DIGITS = 1000      # digits in a row: beyond it a parser may refuse what another takes


cdef bint is_odd_json(const Text* text) noexcept nogil:
    """Whether a text that SQLite takes for JSON may be none to Python, or hold text that is not Unicode."""
    cdef int i, nested = 0, digits = 0
    cdef char c
    for i in range(text.size):
        c = text.data[i]
        digits = digits + 1 if b"0" <= c <= b"9" else 0
        if c == b"[" or c == b"{":
            nested += 1
        elif c == b"]" or c == b"}":
            nested -= 1
        elif c == b"\\" and i + 2 < text.size and text.data[i + 1] == b"u" and text.data[i + 2] | 0x20 == b"d":
            return True
        if c == 0 or nested > MOST_NESTED or digits > MOST_DIGITS:
            return True
    return False


def check_json_objects(TextColumn column not None, look not None):
    """Raise ColumnError for the first value that is not the text of a JSON object.

    Args:
        look: called with (text, row) where parsers differ, to raise it if Python could not read that.
    """
    cdef Connection memory = Connection(":memory:")
    cdef Statement check = memory.prepare("SELECT 1 WHERE json_valid(?1) AND json_type(?1) = 'object'")
    cdef Py_ssize_t row = 0
    cdef const Text* text
    cdef int rc = SQLITE_ROW
    try:
        while row < column.length:
            with nogil:
                while row < column.length:
                    text = column.values + row * column.stride
                    if text.data != NULL:
                        rc = run_row_of(check.stmt, column, row)
                        if rc != SQLITE_ROW or is_odd_json(text):
                            break
                    row += 1
            if rc != SQLITE_ROW:
                raise text_error(column.name, row, "is not the text of a JSON object")
            if row < column.length:
                look(text_of(column, row), row)
            row += 1
    finally:
        memory.close()


cdef inline int run_row_of(sqlite3_stmt* stmt, TextColumn column, Py_ssize_t row) noexcept nogil:
    cdef void* only = <void*> column
    return run_row(stmt, &only, 1, row)


cdef class Plan:
    """Rows that have passed every check that needs no database, and the order to write them in.

    Counts add up over the calls of ``write``.
    """
    cdef list columns
    cdef list keys              # names of the columns of the primary key
    cdef str table
    cdef uint32_t* order
    cdef readonly Py_ssize_t rows           # as handed over
    cdef readonly Py_ssize_t count          # to be written
    cdef readonly int64_t inserted
    cdef readonly int64_t updated

    def __cinit__(self):
        self.order = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.order)

    cdef int make_order(self) except -1:
        self.order = <uint32_t*> PyMem_RawMalloc(max(self.rows, 1) * sizeof(uint32_t))
        if self.order == NULL:
            raise MemoryError()
        return 0

    def key_values(self):
        """The primary key of each row, as tuples of ``str``, in the order they were handed over."""
        cdef list columns = self.columns[:len(self.keys)]
        cdef Py_ssize_t rows = (<Column> columns[0]).length
        return [tuple([text_of(column, row) for column in columns]) for row in range(rows)]

    def write(self, Connection connection not None, Py_ssize_t start, Py_ssize_t stop, *, bint poured=False):
        """Write the rows at ``start`` to ``stop`` of the order, in the transaction that is open.

        A row whose key exists is updated in the columns given, and only when one of them differs. Two
        plain statements do it: ON CONFLICT DO UPDATE tells neither which it did nor whether anything
        changed.

        Args:
            poured: insert them all by one statement. If that fails, SQLite rolls back the transaction.
        """
        cdef Handle handle
        cdef list names = [(<Column> column).name for column in self.columns]
        cdef list others = [name for name in names if name not in self.keys]
        cdef Statement insert = Statement.__new__(Statement)
        cdef Statement update = Statement.__new__(Statement)
        cdef Statement taken = Statement.__new__(Statement)
        cdef void** columns
        cdef Feed feed
        cdef int width = len(self.columns), index, rc = SQLITE_DONE
        cdef str operation = f"insert into {self.table}"
        start, stop = max(start, 0), min(stop, self.count)
        number = {name: f"?{index + 1}" for index, name in enumerate(names)}
        columns = <void**> PyMem_RawMalloc(width * sizeof(void*))
        if columns == NULL:
            raise MemoryError()
        for index in range(width):
            columns[index] = <void*> self.columns[index]
        feed.columns, feed.width, feed.order, feed.start, feed.stop = columns, width, self.order, start, stop
        into = f"INTO {self.table}({', '.join(names)})"
        try:
            handle = connection.entered(operation)
            try:
                if others:
                    changes = ", ".join([f"{name} = {number[name]}" for name in others])
                    differs = " OR ".join([f"{name} IS NOT {number[name]}" for name in others])
                    where = " AND ".join([f"{key} = {number[key]}" for key in self.keys])
                    update.prepare(handle, f"UPDATE {self.table} SET {changes} WHERE {where} "
                                   f"AND ({differs})", SQLITE_PREPARE_PERSISTENT)
                if poured:
                    handle.check(sqlite3_create_module(handle.db, FEED, &_feed_module, &feed), operation)
                    # ROLLBACK: to undo only itself it would copy each page it changes. WHERE: the grammar.
                    insert.prepare(handle, f"INSERT OR ROLLBACK {into} SELECT * FROM {FEED.decode()} WHERE true "
                                   f"ON CONFLICT DO NOTHING", 0)
                    with nogil:
                        rc = self.pour(handle.db, insert.stmt, update.stmt, &feed)
                else:
                    if self.keys == names[:1]:
                        # Triggers before inserts fire for what then does nothing, too.
                        taken.prepare(handle, f"SELECT 1 FROM {self.table} WHERE {names[0]} = ?1",
                                      SQLITE_PREPARE_PERSISTENT)
                    insert.prepare(handle, f"INSERT {into} VALUES ({', '.join(number.values())}) "
                                   f"ON CONFLICT DO NOTHING", SQLITE_PREPARE_PERSISTENT)
                    with nogil:
                        rc = self.write_rows(handle.db, taken.stmt, insert.stmt, update.stmt, &feed)
                for column in self.columns:
                    if isinstance(column, VectorColumn):
                        (<VectorColumn> column).require_unchanged()
                handle.check(rc, operation, insert.sql)
            finally:
                # Bound without copies: nothing may point into the columns once they are gone.
                insert.finalize()
                update.finalize()
                taken.finalize()
                if poured:
                    sqlite3_create_module(handle.db, FEED, NULL, NULL)
                handle.leave()
        finally:
            PyMem_RawFree(columns)

    cdef int pour(self, sqlite3* db, sqlite3_stmt* insert, sqlite3_stmt* update, const Feed* feed) noexcept nogil:
        cdef int64_t inserted
        cdef int rc = sqlite3_step(insert)
        if rc != SQLITE_DONE:
            return rc
        inserted = sqlite3_changes64(db)
        self.inserted += inserted
        if inserted == feed.stop - feed.start or update == NULL:
            return rc
        return self.write_rows(db, NULL, NULL, update, feed)  # those that are new have nothing to change

    cdef int write_rows(self, sqlite3* db, sqlite3_stmt* taken, sqlite3_stmt* insert, sqlite3_stmt* update,
                        const Feed* feed) noexcept nogil:
        """Insert row by row, where `insert` is not NULL, and update what is there already.

        `taken`, unless it is NULL, tells by the first column whether a row is there.
        """
        cdef Py_ssize_t position, row
        cdef int rc
        for position in range(feed.start, feed.stop):
            row = feed.order[position]
            if position + 2 * ROWS_AHEAD < feed.stop:
                touch_row(feed.columns, feed.width, feed.order[position + 2 * ROWS_AHEAD],
                          feed.order[position + ROWS_AHEAD])
            rc = SQLITE_DONE
            if taken != NULL:
                rc = run_row(taken, feed.columns, 1, row)
                if rc != SQLITE_DONE and rc != SQLITE_ROW:
                    return rc
            if insert != NULL and rc == SQLITE_DONE:
                rc = run_row(insert, feed.columns, feed.width, row)
                if rc != SQLITE_DONE:
                    return rc
                if sqlite3_changes64(db):
                    self.inserted += 1
                    continue
            if update != NULL:
                rc = run_row(update, feed.columns, feed.width, row)
                if rc != SQLITE_DONE:
                    return rc
                self.updated += sqlite3_changes64(db)
        return SQLITE_DONE


cdef inline int run_row(sqlite3_stmt* stmt, void** columns, int width, Py_ssize_t row) noexcept nogil:
    """Bind one row and step; resets, so that the result code is the step's own."""
    cdef int index, rc
    for index in range(width):
        rc = (<Column> columns[index]).bind(stmt, index + 1, row)
        if rc != SQLITE_OK:
            return rc
    rc = sqlite3_step(stmt)
    sqlite3_reset(stmt)
    return rc


@cython.final
cdef class NodePlan(Plan):
    """Nodes to insert or update. The first column is ``id``; a node keeps what it has in columns not given.

    Raises:
        InvalidIdError, ColumnError: naming the first offending row.
        DuplicateNodeError: ids that occur more than once.
    """

    def __init__(self, list columns not None):
        cdef TextColumn ids = columns[0]
        cdef Key* keys
        cdef Py_ssize_t row
        self.columns, self.keys, self.table = columns, ["id"], "nodes"
        self.rows = self.count = ids.length
        check_lengths(columns)
        check_ids(ids)
        if self.rows >= 0xFFFFFFFF:
            raise ColumnError(f"{self.rows} rows in one batch; give fewer than 2^32")
        self.make_order()
        keys = <Key*> PyMem_RawMalloc(max(self.rows, 1) * sizeof(Key))
        if keys == NULL:
            raise MemoryError()
        try:
            with nogil:
                for row in range(self.rows):
                    keys[row].data = ids.values[row * ids.stride].data
                    keys[row].size = ids.values[row * ids.stride].size
                    keys[row].row = <uint32_t> row
                sort_keys(keys, self.rows, 0)
                for row in range(self.rows):
                    self.order[row] = keys[row].row
            self.refuse_duplicates(ids, keys)
        finally:
            PyMem_RawFree(keys)

    cdef int refuse_duplicates(self, TextColumn ids, const Key* keys) except -1:
        cdef Py_ssize_t position, first = 0
        cdef int64_t repeated = 0
        cdef list rows = []
        for position in range(1, self.rows):
            if not same_key(keys + position, keys + first):
                first = position
                continue
            repeated += 1
            if len(rows) < errors.ROWS_NAMED:
                rows.append((keys[position].row, f"{text_of(ids, keys[position].row)!r} is also row "
                                                 f"{keys[first].row}"))
        if repeated:
            raise DuplicateNodeError("ids occur more than once in the batch", rows, repeated,
                                     "Give each id once")
        return 0

    @property
    def vectors(self):
        """The column of vectors, or None."""
        for column in self.columns:
            if isinstance(column, VectorColumn):
                return column
        return None


@cython.final
cdef class EdgePlan(Plan):
    """Edges to insert or update. The first columns are ``source``, ``target``, ``type``, in numbers.

    Of rows with the same three the last one counts. ``check_ends`` completes the plan.

    Args:
        ends: the values of ``source`` and ``target``.
        kinds: those of ``type``.
    """
    cdef Distinct ends
    cdef CodedColumn source
    cdef CodedColumn target
    cdef CodedColumn kind
    cdef readonly int64_t skipped
    cdef readonly int64_t stubbed
    cdef readonly tuple problems

    def __init__(self, Distinct ends not None, Distinct kinds not None, list columns not None):
        self.columns, self.keys, self.table = columns, ["source", "target", "type"], "edges"
        self.rows = (<Column> columns[0]).length
        self.problems = ()
        check_lengths(columns)
        self.source, self.target, self.kind = columns[:3]
        self.ends = ends
        if self.source.distinct is not ends or self.target.distinct is not ends or self.kind.distinct is not kinds:
            raise ColumnError("source, target and type are numbers of other values")
        ends.sort([self.source, self.target])
        kinds.sort([self.kind])

    def check_ends(self, Connection connection not None, str on_missing not None):
        """Look every end up once, in the transaction that is open, and settle which rows to write.

        Args:
            on_missing: for an end that is no node: ``"error"``, ``"skip"`` the edge, or ``"stub"``:
                make a node of type ``stub``.

        Raises:
            DanglingEdgeError: with ``"error"``; nothing was written.
        """
        cdef Handle handle
        cdef uint8_t* missing = <uint8_t*> PyMem_RawMalloc(max(self.ends.table.count, 1))
        self.skipped = self.stubbed = 0
        try:
            if missing == NULL:
                raise MemoryError()
            handle = connection.entered("look up nodes")
            try:
                self.find_missing(handle, missing)
                if on_missing == "stub":
                    self.insert_stubs(handle, missing)
            finally:
                handle.leave()
            self.arrange(missing)
            if self.skipped:
                self.name_problems(missing)
            if self.skipped and on_missing == "error":
                raise DanglingEdgeError("edges point to nodes that do not exist", list(self.problems),
                                        self.skipped, "Insert the nodes first, or pass "
                                        "on_missing='skip' or 'stub'")
        finally:
            PyMem_RawFree(missing)

    def missing_ends(self, Connection connection not None):
        """The ends that are no node, each once, in key order."""
        cdef Handle handle
        cdef const Key* key
        cdef Py_ssize_t rank
        cdef uint8_t* missing = <uint8_t*> PyMem_RawMalloc(max(self.ends.table.count, 1))
        cdef list named = []
        try:
            if missing == NULL:
                raise MemoryError()
            handle = connection.entered("look up nodes")
            try:
                self.find_missing(handle, missing)
            finally:
                handle.leave()
            for rank in range(self.ends.table.count):
                if missing[rank]:
                    key = self.ends.table.keys + rank
                    named.append(key.data[:key.size].decode())
        finally:
            PyMem_RawFree(missing)
        return named

    cdef int find_missing(self, Handle handle, uint8_t* missing) except -1:
        """Mark each distinct end that is no node."""
        cdef Statement lookup = Statement.__new__(Statement)
        cdef const Key* key
        cdef Py_ssize_t rank
        cdef int rc = SQLITE_DONE
        lookup.prepare(handle, "SELECT 1 FROM nodes WHERE id = ?", SQLITE_PREPARE_PERSISTENT)
        try:
            with nogil:
                for rank in range(self.ends.table.count):
                    key = self.ends.table.keys + rank
                    rc = sqlite3_bind_text(lookup.stmt, 1, key.data, key.size, SQLITE_STATIC)
                    if rc == SQLITE_OK:
                        rc = sqlite3_step(lookup.stmt)
                    missing[rank] = rc == SQLITE_DONE
                    sqlite3_reset(lookup.stmt)
                    if rc != SQLITE_ROW and rc != SQLITE_DONE:
                        break
            handle.check(rc, "look up nodes", lookup.sql)
        finally:
            lookup.finalize()
        return 0

    cdef int insert_stubs(self, Handle handle, uint8_t* missing) except -1:
        """Make a node for each end that is none, and unmark it."""
        cdef Statement insert = Statement.__new__(Statement)
        cdef const Key* key
        cdef Py_ssize_t rank
        cdef int rc = SQLITE_DONE
        insert.prepare(handle, "INSERT INTO nodes(id, type, title) VALUES (?1, 'stub', ?1)",
                       SQLITE_PREPARE_PERSISTENT)
        try:
            with nogil:
                for rank in range(self.ends.table.count):
                    if not missing[rank]:
                        continue
                    key = self.ends.table.keys + rank
                    rc = sqlite3_bind_text(insert.stmt, 1, key.data, key.size, SQLITE_STATIC)
                    if rc == SQLITE_OK:
                        rc = sqlite3_step(insert.stmt)
                    sqlite3_reset(insert.stmt)
                    if rc != SQLITE_DONE:
                        break
                    missing[rank] = 0
                    self.stubbed += 1
            handle.check(rc, "insert stub nodes", insert.sql)
        finally:
            insert.finalize()
        return 0

    cdef int arrange(self, const uint8_t* missing) except -1:
        """Sort the rows whose ends are there by key, keeping the last of equal ones."""
        cdef Py_ssize_t distinct = max(self.ends.table.count, self.kind.distinct.table.count, 1)
        cdef uint32_t* starts = <uint32_t*> PyMem_RawMalloc(distinct * sizeof(uint32_t))
        cdef uint32_t* spare = <uint32_t*> PyMem_RawMalloc(max(self.rows, 1) * sizeof(uint32_t))
        cdef Py_ssize_t row, kept = 0, position
        try:
            PyMem_RawFree(self.order)
            self.order = NULL
            self.make_order()
            if starts == NULL or spare == NULL:
                raise MemoryError()
            with nogil:
                for row in range(self.rows):
                    if missing[self.source.number(row)] or missing[self.target.number(row)]:
                        self.skipped += 1
                        continue
                    self.order[kept] = <uint32_t> row
                    kept += 1
                # The least significant first: each keeps the order of the one before among its equals.
                spare = self.sort_by(self.kind, spare, kept, starts)
                spare = self.sort_by(self.target, spare, kept, starts)
                spare = self.sort_by(self.source, spare, kept, starts)
                self.count = 0
                for position in range(kept):
                    row = self.order[position]
                    if position + 1 < kept and self.same_edge(row, self.order[position + 1]):
                        continue
                    self.order[self.count] = <uint32_t> row
                    self.count += 1
        finally:
            PyMem_RawFree(starts)
            PyMem_RawFree(spare)
        return 0

    cdef uint32_t* sort_by(self, CodedColumn column, uint32_t* spare, Py_ssize_t count,
                           uint32_t* starts) noexcept nogil:
        """Sort the order by a column into `spare`; returns what is spare then."""
        cdef uint32_t* sorted = spare
        if column.stride == 0:
            return spare
        sort_by_number(self.order, sorted, count, column.numbers, starts, column.distinct.table.count)
        spare, self.order = self.order, sorted
        return spare

    cdef bint same_edge(self, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
        return self.source.number(a) == self.source.number(b) and self.target.number(a) == self.target.number(b) \
            and self.kind.number(a) == self.kind.number(b)

    def release(self):
        """Let go of the memory of what has been written: the counts stay."""
        PyMem_RawFree(self.order)
        self.order = NULL
        self.count = 0
        for column in (self.source, self.target, self.kind):
            (<CodedColumn> column).release()

    cdef int name_problems(self, const uint8_t* missing) except -1:
        cdef Py_ssize_t row
        cdef list named = []
        for row in range(self.rows):
            for end in (self.source, self.target):
                if missing[(<CodedColumn> end).number(row)]:
                    named.append((row, f"{(<CodedColumn> end).name} {text_of(end, row)!r}"))
                    break
            if len(named) == errors.ROWS_NAMED:
                break
        self.problems = tuple(named)
        return 0
