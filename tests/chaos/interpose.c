/* Kills the process at a chosen file-system event: preloaded, it stands between every library and the C library.
 *
 * chaos_arm(prefix, number, mode) counts events on paths that begin with `prefix` and ends the process with SIGKILL at
 * event `number` (from 0): before it, after it, or, for a write, when a part of its bytes has been written. With
 * number -1 events are only counted, and named in the file that chaos_log was given.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { BEFORE, AFTER, ONE_BYTE, HALF, LAST_BYTE };

static char prefix[PATH_MAX];
static long target = -1;
static int mode, log_fd = -1;
static atomic_long count;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

void chaos_log(int fd) { log_fd = fd; }

void chaos_arm(const char *path, long number, int how) {
    snprintf(prefix, sizeof prefix, "%s", path);
    target = number;
    mode = how;
    atomic_store(&count, 0);
}

long chaos_count(void) { return atomic_load(&count); }

static const char *full(int dir, const char *path, char *buffer) {
    char link[64];
    ssize_t length;
    if (path && (path[0] == '/' || dir == AT_FDCWD)) return path;
    snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
    length = readlink(link, buffer, PATH_MAX - 1);
    if (length < 0) return "";
    buffer[length] = 0;
    if (path) snprintf(buffer + length, PATH_MAX - length, "/%s", path);
    return buffer;
}

/* Whether this is the event to die at; everything else is counted and goes on. */
static int hit(const char *what, int dir, const char *path) {
    char buffer[PATH_MAX];
    const char *name;
    long number;
    if (!prefix[0]) return 0;
    name = full(dir, path, buffer);
    if (strncmp(name, prefix, strlen(prefix))) return 0;
    number = atomic_fetch_add(&count, 1);
    if (log_fd >= 0) dprintf(log_fd, "%ld %s %s\n", number, what, name + strlen(prefix));
    if (number != target) return 0;
    if (mode == BEFORE) die();
    return 1;
}

#define AROUND(what, dir, path, call)      \
    do {                                   \
        int is_hit = hit(what, dir, path); \
        __typeof__(call) result = call;    \
        if (is_hit) die();                 \
        return result;                     \
    } while (0)

#define CREATES(flags) ((flags) & (O_CREAT | O_TRUNC))

#define OPENER(name, real)                                                                \
    int name(const char *path, int flags, ...) {                                          \
        va_list rest;                                                                     \
        va_start(rest, flags);                                                            \
        mode_t bits = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;         \
        va_end(rest);                                                                     \
        if (!CREATES(flags)) return REAL(real)(path, flags, bits);                        \
        AROUND("open", AT_FDCWD, path, REAL(real)(path, flags, bits));                    \
    }

#define OPENER_AT(name, real)                                                             \
    int name(int dir, const char *path, int flags, ...) {                                 \
        va_list rest;                                                                     \
        va_start(rest, flags);                                                            \
        mode_t bits = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0;         \
        va_end(rest);                                                                     \
        if (!CREATES(flags)) return REAL(real)(dir, path, flags, bits);                   \
        AROUND("open", dir, path, REAL(real)(dir, path, flags, bits));                    \
    }

OPENER(open, open)
OPENER(open64, open64)
OPENER_AT(openat, openat)
OPENER_AT(openat64, openat64)

FILE *fopen(const char *path, const char *how) {
    if (how[0] == 'r') return REAL(fopen)(path, how);
    AROUND("open", AT_FDCWD, path, REAL(fopen)(path, how));
}
FILE *fopen64(const char *path, const char *how) {
    if (how[0] == 'r') return REAL(fopen64)(path, how);
    AROUND("open", AT_FDCWD, path, REAL(fopen64)(path, how));
}

static size_t part(size_t size) {
    switch (mode) {
    case ONE_BYTE: return size ? 1 : 0;
    case HALF: return size / 2;
    case LAST_BYTE: return size ? size - 1 : 0;
    default: return size;
    }
}

ssize_t write(int fd, const void *data, size_t size) {
    if (!prefix[0] || fd == log_fd) return REAL(write)(fd, data, size);
    int is_hit = hit("write", fd, NULL);
    ssize_t written = REAL(write)(fd, data, is_hit ? part(size) : size);
    if (is_hit) die();
    return written;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    int is_hit = hit("write", fd, NULL);
    ssize_t written = REAL(pwrite64)(fd, data, is_hit ? part(size) : size, at);
    if (is_hit) die();
    return written;
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    int is_hit = hit("write", fd, NULL);
    ssize_t written;
    if (is_hit && number) {
        written = REAL(write)(fd, parts[0].iov_base, part(parts[0].iov_len));
        die();
    }
    written = REAL(writev)(fd, parts, number);
    if (is_hit) die();
    return written;
}

int fsync(int fd) { AROUND("fsync", fd, NULL, REAL(fsync)(fd)); }
int fdatasync(int fd) { AROUND("fsync", fd, NULL, REAL(fdatasync)(fd)); }
int rename(const char *from, const char *to) { AROUND("rename", AT_FDCWD, to, REAL(rename)(from, to)); }
int renameat(int d, const char *from, int e, const char *to) { AROUND("rename", e, to, REAL(renameat)(d, from, e, to)); }
int unlink(const char *path) { AROUND("unlink", AT_FDCWD, path, REAL(unlink)(path)); }
int unlinkat(int dir, const char *path, int flags) { AROUND("unlink", dir, path, REAL(unlinkat)(dir, path, flags)); }
int rmdir(const char *path) { AROUND("rmdir", AT_FDCWD, path, REAL(rmdir)(path)); }
int mkdir(const char *path, mode_t bits) { AROUND("mkdir", AT_FDCWD, path, REAL(mkdir)(path, bits)); }
int mkdirat(int dir, const char *path, mode_t bits) { AROUND("mkdir", dir, path, REAL(mkdirat)(dir, path, bits)); }
int ftruncate64(int fd, off64_t size) { AROUND("truncate", fd, NULL, REAL(ftruncate64)(fd, size)); }
int link(const char *from, const char *to) { AROUND("link", AT_FDCWD, to, REAL(link)(from, to)); }
