/* The engine, and what can be mended about it from within only: a fork.

   SQLite knows per process which locks it holds on a file. A child inherits that knowledge but none of the
   locks: a connection it opened to a file that its parent has open would hold none, and the parent, finding
   none, could take the WAL away from under it. So the child forgets; what it opens then is locked anew. */
#include "sqlite3.c"

#if SQLITE_OS_UNIX
static sqlite3_mutex *resonance_forking;

/* Nobody may be half-way through the list while the process is copied. */
void resonance_before_fork(void) {
    resonance_forking = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_VFS1);
    sqlite3_mutex_enter(resonance_forking);
}

void resonance_after_fork(int in_child) {
    if (in_child)
        inodeList = 0;
    sqlite3_mutex_leave(resonance_forking);
}
#else
void resonance_before_fork(void) {}
void resonance_after_fork(int in_child) { (void)in_child; }
#endif
