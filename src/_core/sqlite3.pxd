# The C calls Resonance uses, and nothing else. https://sqlite.org/c3ref/intro.html

from libc.stdint cimport int64_t

cdef extern from "sqlite3.h" nogil:
    ctypedef struct sqlite3
    ctypedef struct sqlite3_stmt
    ctypedef struct sqlite3_backup

    ctypedef int64_t sqlite3_int64
    ctypedef void (*sqlite3_destructor_type)(void*)

    const sqlite3_destructor_type SQLITE_STATIC
    const sqlite3_destructor_type SQLITE_TRANSIENT

    enum:
        SQLITE_OK, SQLITE_ERROR, SQLITE_INTERNAL, SQLITE_PERM, SQLITE_ABORT, SQLITE_BUSY
        SQLITE_LOCKED, SQLITE_NOMEM, SQLITE_READONLY, SQLITE_INTERRUPT, SQLITE_IOERR
        SQLITE_CORRUPT, SQLITE_NOTFOUND, SQLITE_FULL, SQLITE_CANTOPEN, SQLITE_PROTOCOL
        SQLITE_EMPTY, SQLITE_SCHEMA, SQLITE_TOOBIG, SQLITE_CONSTRAINT, SQLITE_MISMATCH
        SQLITE_MISUSE, SQLITE_NOLFS, SQLITE_AUTH, SQLITE_FORMAT, SQLITE_RANGE, SQLITE_NOTADB
        SQLITE_ROW, SQLITE_DONE
        SQLITE_CONSTRAINT_FOREIGNKEY

        SQLITE_INTEGER, SQLITE_FLOAT, SQLITE_TEXT, SQLITE_BLOB, SQLITE_NULL

        SQLITE_OPEN_READONLY, SQLITE_OPEN_READWRITE, SQLITE_OPEN_CREATE
        SQLITE_OPEN_NOMUTEX, SQLITE_OPEN_EXRESCODE
        SQLITE_PREPARE_PERSISTENT
        SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, SQLITE_DBCONFIG_DEFENSIVE
        SQLITE_DBCONFIG_ENABLE_TRIGGER
        SQLITE_DBCONFIG_TRUSTED_SCHEMA, SQLITE_DBCONFIG_DQS_DML, SQLITE_DBCONFIG_DQS_DDL
        SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_TRUNCATE
        SQLITE_UTF8

    const char* sqlite3_libversion()
    const char* sqlite3_sourceid()
    const char* sqlite3_errstr(int code)
    const char* sqlite3_compileoption_get(int index)

    int sqlite3_open_v2(const char* filename, sqlite3** db, int flags, const char* vfs)
    int sqlite3_close_v2(sqlite3* db)
    int sqlite3_db_config(sqlite3* db, int op, ...)
    int sqlite3_busy_timeout(sqlite3* db, int milliseconds)
    void sqlite3_progress_handler(sqlite3* db, int every, int (*callback)(void*) noexcept, void* arg)
    void sqlite3_interrupt(sqlite3* db)
    void* sqlite3_wal_hook(sqlite3* db, int (*callback)(void*, sqlite3*, const char*, int) noexcept,
                           void* arg)
    int sqlite3_get_autocommit(sqlite3* db)
    sqlite3_int64 sqlite3_changes64(sqlite3* db)
    sqlite3_int64 sqlite3_total_changes64(sqlite3* db)
    sqlite3_int64 sqlite3_last_insert_rowid(sqlite3* db)
    int sqlite3_wal_checkpoint_v2(sqlite3* db, const char* schema, int mode, int* log, int* done)

    int sqlite3_errcode(sqlite3* db)
    int sqlite3_extended_errcode(sqlite3* db)
    const char* sqlite3_errmsg(sqlite3* db)

    int sqlite3_prepare_v3(sqlite3* db, const char* sql, int size, unsigned int flags,
                           sqlite3_stmt** statement, const char** tail)
    int sqlite3_finalize(sqlite3_stmt* statement)
    int sqlite3_reset(sqlite3_stmt* statement)
    int sqlite3_clear_bindings(sqlite3_stmt* statement)
    int sqlite3_step(sqlite3_stmt* statement)
    int sqlite3_stmt_readonly(sqlite3_stmt* statement)
    int sqlite3_bind_parameter_count(sqlite3_stmt* statement)
    const char* sqlite3_bind_parameter_name(sqlite3_stmt* statement, int index)

    int sqlite3_bind_null(sqlite3_stmt* statement, int index)
    int sqlite3_bind_int64(sqlite3_stmt* statement, int index, sqlite3_int64 value)
    int sqlite3_bind_double(sqlite3_stmt* statement, int index, double value)
    int sqlite3_bind_text(sqlite3_stmt* statement, int index, const char* text, int size,
                          sqlite3_destructor_type destructor)
    int sqlite3_bind_blob(sqlite3_stmt* statement, int index, const void* blob, int size,
                          sqlite3_destructor_type destructor)

    int sqlite3_column_count(sqlite3_stmt* statement)
    const char* sqlite3_column_name(sqlite3_stmt* statement, int column)
    int sqlite3_column_type(sqlite3_stmt* statement, int column)
    sqlite3_int64 sqlite3_column_int64(sqlite3_stmt* statement, int column)
    double sqlite3_column_double(sqlite3_stmt* statement, int column)
    const unsigned char* sqlite3_column_text(sqlite3_stmt* statement, int column)
    const void* sqlite3_column_blob(sqlite3_stmt* statement, int column)
    int sqlite3_column_bytes(sqlite3_stmt* statement, int column)

    sqlite3_backup* sqlite3_backup_init(sqlite3* target, const char* target_schema,
                                        sqlite3* source, const char* source_schema)
    int sqlite3_backup_step(sqlite3_backup* backup, int pages)
    int sqlite3_backup_finish(sqlite3_backup* backup)
    int sqlite3_backup_pagecount(sqlite3_backup* backup)

    ctypedef struct sqlite3_context
    ctypedef struct sqlite3_value

    ctypedef struct sqlite3_index_info:
        double estimatedCost
        sqlite3_int64 estimatedRows

    ctypedef struct sqlite3_vtab:
        char* zErrMsg

    ctypedef struct sqlite3_vtab_cursor:
        sqlite3_vtab* pVtab

    ctypedef struct sqlite3_module:
        int (*xConnect)(sqlite3*, void*, int, const char* const*, sqlite3_vtab**, char**) noexcept
        int (*xBestIndex)(sqlite3_vtab*, sqlite3_index_info*) noexcept
        int (*xDisconnect)(sqlite3_vtab*) noexcept
        int (*xOpen)(sqlite3_vtab*, sqlite3_vtab_cursor**) noexcept
        int (*xClose)(sqlite3_vtab_cursor*) noexcept
        int (*xFilter)(sqlite3_vtab_cursor*, int, const char*, int, sqlite3_value**) noexcept
        int (*xNext)(sqlite3_vtab_cursor*) noexcept
        int (*xEof)(sqlite3_vtab_cursor*) noexcept
        int (*xColumn)(sqlite3_vtab_cursor*, sqlite3_context*, int) noexcept
        int (*xRowid)(sqlite3_vtab_cursor*, sqlite3_int64*) noexcept

    int sqlite3_create_module(sqlite3* db, const char* name, const sqlite3_module* module, void* arg)
    int sqlite3_declare_vtab(sqlite3* db, const char* sql)

    void sqlite3_result_null(sqlite3_context* context)
    void sqlite3_result_error(sqlite3_context* context, const char* message, int size)
    void sqlite3_result_double(sqlite3_context* context, double value)
    void sqlite3_result_text(sqlite3_context* context, const char* text, int size,
                             sqlite3_destructor_type destructor)
    void sqlite3_result_blob(sqlite3_context* context, const void* blob, int size,
                             sqlite3_destructor_type destructor)
