/* Ends a process at the n-th call that changes a file below one folder, as `kill -9` or a power cut at that moment would.
 *
 * Preloaded (LD_PRELOAD) into a process whose environment says KILLER_ROOT (the folder), KILLER_AT (n, counted from 1 over all threads;
 * 0: never) and KILLER_COUNT (a file in which every call is logged as one byte: its size is the number of calls). The process is ended
 * *before* the call, half of the times in the middle of a write: then the first half of the bytes is written.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define FILES 65536
static atomic_long calls;
static atomic_char ours[FILES];
static const char *root;
static size_t root_size;
static long fatal;
static int counter = -1;

static void *next(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    root = getenv("KILLER_ROOT");
    root_size = root ? strlen(root) : 0;
    fatal = getenv("KILLER_AT") ? atol(getenv("KILLER_AT")) : 0;
    if (getenv("KILLER_COUNT")) {
        int (*real)(const char *, int, ...) = next("open");
        counter = real(getenv("KILLER_COUNT"), O_WRONLY | O_CREAT | O_APPEND, 0644);
    }
}

static int below(const char *path) {
    char buffer[4096];
    if (!root || !path) return 0;
    if (path[0] != '/') {
        if (!getcwd(buffer, sizeof buffer)) return 0;
        return strncmp(buffer, root, root_size) == 0;
    }
    return strncmp(path, root, root_size) == 0;
}

/* Return whether this is the call at which to die. */
static int count(void) {
    long now = atomic_fetch_add(&calls, 1) + 1;
    if (counter >= 0) {
        ssize_t (*real)(int, const void *, size_t) = next("write");
        if (real(counter, ".", 1) != 1) abort();
    }
    return fatal && now == fatal;
}

static void die(void) { kill(getpid(), SIGKILL); for (;;) pause(); }

static void step(const char *path) { if (below(path) && count()) die(); }

static void stepf(int fd) { if (fd >= 0 && fd < FILES && ours[fd] && count()) die(); }

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FILES) ours[fd] = (char)below(path);
    return fd;
}

#define OPEN(name)                                                              \
    int name(const char *path, int flags, ...) {                                \
        va_list list; va_start(list, flags);                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;  \
        va_end(list);                                                           \
        int (*real)(const char *, int, ...) = next(#name);                      \
        if (flags & (O_CREAT | O_TRUNC)) step(path);                            \
        return opened(real(path, flags, mode), path);                           \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                            \
    int name(int at, const char *path, int flags, ...) {                        \
        va_list list; va_start(list, flags);                                    \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;  \
        va_end(list);                                                           \
        int (*real)(int, const char *, int, ...) = next(#name);                 \
        if (flags & (O_CREAT | O_TRUNC)) step(path);                            \
        return opened(real(at, path, flags, mode), path);                       \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    int (*real)(int) = next("close");
    if (fd >= 0 && fd < FILES) ours[fd] = 0;
    return real(fd);
}

int rename(const char *from, const char *to) {
    int (*real)(const char *, const char *) = next("rename");
    step(to);
    return real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    int (*real)(int, const char *, int, const char *) = next("renameat");
    step(to);
    return real(a, from, b, to);
}
int unlink(const char *path) { int (*real)(const char *) = next("unlink"); step(path); return real(path); }
int rmdir(const char *path) { int (*real)(const char *) = next("rmdir"); step(path); return real(path); }
int unlinkat(int at, const char *path, int flags) {
    int (*real)(int, const char *, int) = next("unlinkat");
    if (at != AT_FDCWD && at >= 0 && at < FILES && ours[at]) { if (count()) die(); }
    else step(path);
    return real(at, path, flags);
}
int mkdir(const char *path, mode_t mode) { int (*real)(const char *, mode_t) = next("mkdir"); step(path); return real(path, mode); }
int link(const char *from, const char *to) { int (*real)(const char *, const char *) = next("link"); step(to); return real(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    int (*real)(int, const char *, int, const char *, int) = next("linkat");
    step(to);
    return real(a, from, b, to, flags);
}
int fsync(int fd) { int (*real)(int) = next("fsync"); stepf(fd); return real(fd); }
int fdatasync(int fd) { int (*real)(int) = next("fdatasync"); stepf(fd); return real(fd); }
int ftruncate(int fd, off_t size) { int (*real)(int, off_t) = next("ftruncate"); stepf(fd); return real(fd, size); }
int ftruncate64(int fd, off64_t size) { int (*real)(int, off64_t) = next("ftruncate64"); stepf(fd); return real(fd, size); }

ssize_t write(int fd, const void *bytes, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = next("write");
    if (fd >= 0 && fd < FILES && ours[fd] && count()) {
        if (fatal & 1 && size > 1) { if (real(fd, bytes, size / 2) < 0) die(); }
        die();
    }
    return real(fd, bytes, size);
}
#define PWRITE(name, type)                                                      \
    ssize_t name(int fd, const void *bytes, size_t size, type at) {             \
        ssize_t (*real)(int, const void *, size_t, type) = next(#name);         \
        if (fd >= 0 && fd < FILES && ours[fd] && count()) {                     \
            if (fatal & 1 && size > 1) { if (real(fd, bytes, size / 2, at) < 0) die(); } \
            die();                                                              \
        }                                                                       \
        return real(fd, bytes, size, at);                                       \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
