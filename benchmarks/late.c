/* Every look at files below LATE_AT waits LATE_US microseconds first, as on another machine; for LD_PRELOAD (benchmarks/late.py). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static void wait_for(int is_below) {
    static int us = -1;
    if (us < 0) us = getenv("LATE_US") ? atoi(getenv("LATE_US")) : 0;
    if (is_below && us) usleep(us);
}
static int below(const char *path) {
    const char *at = getenv("LATE_AT");
    return at && path && strncmp(path, at, strlen(at)) == 0;
}
static int beside(int folder, const char *path) { return below(path) || (folder > 2 && path && path[0] != '/'); }
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)

DIR *opendir(const char *path) { REAL(opendir); wait_for(below(path)); wait_for(below(path)); return real(path); } /* open, read */
int stat64(const char *restrict path, struct stat64 *restrict to) { REAL(stat64); wait_for(below(path)); return real(path, to); }
int fstatat64(int folder, const char *restrict path, struct stat64 *restrict to, int flags) {
    REAL(fstatat64); wait_for(beside(folder, path)); return real(folder, path, to, flags);
}
int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict to) {
    REAL(statx); wait_for(beside(folder, path)); return real(folder, path, flags, mask, to);
}
int open64(const char *path, int flags, ...) {
    REAL(open64); va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
    wait_for(below(path)); wait_for(below(path)); return real(path, flags, mode); /* open, and read what follows */
}
int openat64(int folder, const char *path, int flags, ...) {
    REAL(openat64); va_list more; va_start(more, flags); int mode = va_arg(more, int); va_end(more);
    wait_for(beside(folder, path)); wait_for(beside(folder, path)); return real(folder, path, flags, mode);
}
