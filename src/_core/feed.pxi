# Rows of a batch as a table that one statement reads: its cursors stay where the last row went, and
# nothing is bound, opened or sought anew for each. https://sqlite.org/vtab.html

cdef enum:
    ROWS_AHEAD = 8          # as many rows as are written while memory answers
    FEED_SQL = 512          # bytes that declare as many columns as a table of ours can have


cdef inline void touch_row(void** columns, int width, Py_ssize_t far, Py_ssize_t near) noexcept nogil:
    """Have the memory of later rows on its way: key order is no order in memory."""
    cdef int index
    for index in range(width):
        (<Column> columns[index]).touch(far, near)


cdef struct Feed:
    void** columns          # borrowed Column objects
    int width
    const uint32_t* order
    Py_ssize_t start
    Py_ssize_t stop


cdef struct FeedTable:
    sqlite3_vtab base
    const Feed* feed


cdef struct FeedCursor:
    sqlite3_vtab_cursor base
    const Feed* feed
    Py_ssize_t position


cdef int feed_connect(sqlite3* db, void* arg, int argc, const char* const* argv, sqlite3_vtab** table,
                      char** error) noexcept nogil:
    cdef const Feed* feed = <const Feed*> arg
    cdef FeedTable* made
    cdef char sql[FEED_SQL]
    cdef int index, rc, size = 0
    size = snprintf(sql, FEED_SQL, "CREATE TABLE feed(")
    for index in range(feed.width):
        size += snprintf(sql + size, FEED_SQL - size, "%sc%d", b"," if index else b"", index)
    snprintf(sql + size, FEED_SQL - size, ")")
    rc = sqlite3_declare_vtab(db, sql)
    if rc != SQLITE_OK:
        return rc
    made = <FeedTable*> PyMem_RawCalloc(1, sizeof(FeedTable))
    if made == NULL:
        return SQLITE_NOMEM
    made.feed = feed
    table[0] = &made.base
    return SQLITE_OK


cdef int feed_disconnect(sqlite3_vtab* table) noexcept nogil:
    PyMem_RawFree(table)
    return SQLITE_OK


cdef int feed_best_index(sqlite3_vtab* table, sqlite3_index_info* info) noexcept nogil:
    cdef const Feed* feed = (<FeedTable*> table).feed
    info.estimatedRows = feed.stop - feed.start
    info.estimatedCost = <double> info.estimatedRows
    return SQLITE_OK


cdef int feed_open(sqlite3_vtab* table, sqlite3_vtab_cursor** cursor) noexcept nogil:
    cdef FeedCursor* made = <FeedCursor*> PyMem_RawCalloc(1, sizeof(FeedCursor))
    if made == NULL:
        return SQLITE_NOMEM
    made.feed = (<FeedTable*> table).feed
    cursor[0] = &made.base
    return SQLITE_OK


cdef int feed_close(sqlite3_vtab_cursor* cursor) noexcept nogil:
    PyMem_RawFree(cursor)
    return SQLITE_OK


cdef int feed_filter(sqlite3_vtab_cursor* cursor, int number, const char* text, int argc,
                     sqlite3_value** argv) noexcept nogil:
    cdef FeedCursor* self = <FeedCursor*> cursor
    self.position = self.feed.start
    return SQLITE_OK


cdef int feed_next(sqlite3_vtab_cursor* cursor) noexcept nogil:
    cdef FeedCursor* self = <FeedCursor*> cursor
    cdef const Feed* feed = self.feed
    self.position += 1
    if self.position + 2 * ROWS_AHEAD < feed.stop:
        touch_row(feed.columns, feed.width, feed.order[self.position + 2 * ROWS_AHEAD],
                  feed.order[self.position + ROWS_AHEAD])
    return SQLITE_OK


cdef int feed_eof(sqlite3_vtab_cursor* cursor) noexcept nogil:
    cdef FeedCursor* self = <FeedCursor*> cursor
    return self.position >= self.feed.stop


cdef int feed_column(sqlite3_vtab_cursor* cursor, sqlite3_context* context, int index) noexcept nogil:
    cdef FeedCursor* self = <FeedCursor*> cursor
    (<Column> self.feed.columns[index]).give(context, self.feed.order[self.position])
    return SQLITE_OK


cdef int feed_rowid(sqlite3_vtab_cursor* cursor, sqlite3_int64* rowid) noexcept nogil:
    rowid[0] = (<FeedCursor*> cursor).position
    return SQLITE_OK


cdef const char* FEED = "resonance_feed"

cdef sqlite3_module _feed_module
memset(&_feed_module, 0, sizeof(_feed_module))
_feed_module.xConnect = feed_connect    # without xCreate it is a table of its own, and needs no name in the schema
_feed_module.xBestIndex = feed_best_index
_feed_module.xDisconnect = feed_disconnect
_feed_module.xOpen = feed_open
_feed_module.xClose = feed_close
_feed_module.xFilter = feed_filter
_feed_module.xNext = feed_next
_feed_module.xEof = feed_eof
_feed_module.xColumn = feed_column
_feed_module.xRowid = feed_rowid
