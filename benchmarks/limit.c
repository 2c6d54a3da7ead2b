/* What the engine itself can do: rows from flat files into a table, and a matrix out of one.
 *
 *   limit insert DATABASE FOLDER TABLE ROWS SETUP BEFORE AFTER NAME:KIND...
 *   limit matrix DATABASE ROWS DIMS SETUP
 *
 * SETUP, BEFORE and AFTER are SQL; SETUP is not timed. A column is FOLDER/NAME.txt with FOLDER/NAME.off,
 * one uint64 offset for each row and the end (KIND t); FOLDER/NAME.raw with a double a row (r), or with
 * b bytes a row (bN). FOLDER/order.u32, if there, says in which order rows are written.
 * One line of JSON says what was measured. Linux: it reads memory from /proc. */

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sqlite3.h"

enum { MOST_COLUMNS = 16 };

typedef struct {
    const char *name;
    char kind;
    int width;
    const uint64_t *offsets;
    const char *data;
} Column;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

static void check(sqlite3 *db, int rc, const char *what) {
    if (rc != SQLITE_OK && rc != SQLITE_DONE && rc != SQLITE_ROW) fail(what, sqlite3_errmsg(db));
}

static void run(sqlite3 *db, const char *sql) { check(db, sqlite3_exec(db, sql, NULL, NULL, NULL), sql); }

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void *load(const char *folder, const char *name, const char *suffix, int required) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s.%s", folder, name, suffix);
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) {
        if (required) fail(path, "cannot be read");
        return NULL;
    }
    char *data = malloc((size_t)status.st_size + 1);
    if (data == NULL) fail(path, "no memory");
    for (off_t done = 0; done < status.st_size;) {
        ssize_t got = read(file, data + done, (size_t)(status.st_size - done));
        if (got <= 0) fail(path, "ended early");
        done += got;
    }
    close(file);
    return data;
}

static long memory(const char *field) {
    char line[256];
    long kib = 0;
    FILE *file = fopen("/proc/self/status", "r");
    if (file == NULL) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, field, strlen(field)) == 0) kib = strtol(line + strlen(field) + 1, NULL, 10);
    fclose(file);
    return kib * 1024;
}

static long forget_peak(void) {
    FILE *file = fopen("/proc/self/clear_refs", "w");
    if (file != NULL) {
        fputs("5", file);
        fclose(file);
    }
    return memory("VmRSS");
}

/* Processor time, which other programs on the machine disturb less. */
static double worked(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void tell(double seconds, double cpu, long resident, sqlite3_int64 rows, double sum) {
    printf("{\"seconds\": %.9f, \"cpu\": %.9f, \"resident\": %ld, \"peak\": %ld, \"rows\": %lld, \"sum\": %.9g, "
           "\"source_id\": \"%s\"}\n",
           seconds, cpu, resident, memory("VmHWM"), (long long)rows, sum, sqlite3_sourceid());
}

static void sync_file(const char *path) {
    int file = open(path, O_RDONLY);
    if (file < 0 || fsync(file) != 0) fail(path, "not synced");
    close(file);
}

static void insert(sqlite3 *db, int argc, char **argv) {
    const char *folder = argv[3], *table = argv[4];
    int64_t rows = atoll(argv[5]);
    Column columns[MOST_COLUMNS];
    int width = argc - 9;
    char sql[4096], names[1024] = "", marks[256] = "";
    sqlite3_stmt *statement;

    if (width < 1 || width > MOST_COLUMNS) fail("columns", "too many or none");
    for (int i = 0; i < width; i++) {
        char *colon = strchr(argv[9 + i], ':');
        if (colon == NULL) fail(argv[9 + i], "has no kind");
        *colon = '\0';
        columns[i].name = argv[9 + i];
        columns[i].kind = colon[1];
        columns[i].width = atoi(colon + 2);
        columns[i].offsets = colon[1] == 't' ? load(folder, columns[i].name, "off", 1) : NULL;
        columns[i].data = load(folder, columns[i].name, colon[1] == 't' ? "txt" : "raw", 1);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", columns[i].name);
        snprintf(marks + strlen(marks), sizeof marks - strlen(marks), "%s?", i ? ", " : "");
    }
    const uint32_t *order = load(folder, "order", "u32", 0);
    run(db, argv[6]);
    snprintf(sql, sizeof sql, "INSERT INTO %s (%s) VALUES (%s)", table, names, marks);

    long resident = forget_peak();
    double started = now(), before = worked();
    run(db, argv[7]);
    check(db, sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL), sql);
    for (int64_t position = 0; position < rows; position++) {
        int64_t row = order == NULL ? position : (int64_t)order[position];
        for (int i = 0; i < width; i++) {
            const Column *column = &columns[i];
            if (column->kind == 't')
                sqlite3_bind_text(statement, i + 1, column->data + column->offsets[row],
                                  (int)(column->offsets[row + 1] - column->offsets[row]), SQLITE_STATIC);
            else if (column->kind == 'r')
                sqlite3_bind_double(statement, i + 1, ((const double *)column->data)[row]);
            else
                sqlite3_bind_blob(statement, i + 1, column->data + row * column->width, column->width,
                                  SQLITE_STATIC);
        }
        if (sqlite3_step(statement) != SQLITE_DONE) fail(sql, sqlite3_errmsg(db));
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    run(db, argv[8]);
    sync_file(argv[2]);
    tell(now() - started, worked() - before, resident, rows, 0);
}

static void matrix(sqlite3 *db, char **argv) {
    const char *sql = "SELECT id, embedding FROM nodes WHERE embedding IS NOT NULL";
    int64_t rows = atoll(argv[3]), found = 0;
    size_t width = (size_t)atoi(argv[4]) * sizeof(float), names = 0, room = 0;
    double started = 0, seconds = 0, before = 0, cpu = 0, sum = 0;
    long resident = 0;

    run(db, argv[5]);
    for (int warm = 0; warm < 2; warm++) {
        sqlite3_stmt *statement;
        char *ids = NULL;
        found = 0, names = 0, room = 0;
        if (warm) resident = forget_peak();
        started = now(), before = worked();
        char *out = malloc((size_t)rows * width);
        if (out == NULL) fail("matrix", "no memory");
        check(db, sqlite3_prepare_v3(db, sql, -1, 0, &statement, NULL), sql);
        int rc;
        while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
            const unsigned char *name = sqlite3_column_text(statement, 0);
            size_t size = (size_t)sqlite3_column_bytes(statement, 0) + 1;
            const void *blob = sqlite3_column_blob(statement, 1);
            if (found == rows || (size_t)sqlite3_column_bytes(statement, 1) != width) fail(sql, "odd row");
            if (names + size > room) {
                room = 2 * room + 4096;
                ids = realloc(ids, room);
                if (ids == NULL) fail("ids", "no memory");
            }
            memcpy(ids + names, name, size);
            names += size;
            memcpy(out + (size_t)found++ * width, blob, width);
        }
        check(db, rc, sql);
        sqlite3_finalize(statement);
        seconds = now() - started, cpu = worked() - before;
        sum = 0;
        for (size_t i = 0; i < (size_t)found * width / sizeof(float); i++) sum += ((float *)(void *)out)[i];
        free(out);
        free(ids);
    }
    tell(seconds, cpu, resident, found, sum);
}

int main(int argc, char **argv) {
    sqlite3 *db;
    if (argc < 3) fail("usage", "see the top of limit.c");
    if (sqlite3_open_v2(argv[2], &db, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK) fail(argv[2], "not opened");
    if (strcmp(argv[1], "insert") == 0 && argc > 9)
        insert(db, argc, argv);
    else if (strcmp(argv[1], "matrix") == 0 && argc == 6)
        matrix(db, argv);
    else
        fail("usage", "see the top of limit.c");
    if (sqlite3_close(db) != SQLITE_OK) fail("close", sqlite3_errmsg(db));
    return 0;
}
