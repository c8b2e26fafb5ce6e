/*
 * Loaded into a master with LD_PRELOAD. Two jobs, each by an environment variable:
 *
 * RECORDER_LOG   a file to which every change of a file below RECORDER_ROOT is appended, in order, and every sync that
 *                succeeded. An entry is a head and two byte strings, see `struct head`; tests/powerloss/disk.rs reads it.
 * FAIL_SYNCS     a file; as soon as it exists, every fsync and fdatasync below RECORDER_ROOT fails with EIO.
 *
 * sync_file_range is not recorded: it promises nothing about a power cut.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

struct head {
    uint8_t kind; /* C create, W write, S set length, F sync, N rename, U unlink, R rmdir, M mkdir */
    uint8_t zero[3];
    uint32_t path_bytes;
    uint64_t offset;
    uint64_t data_bytes;
};

/* One change at a time: the order in the log is the order in which they happened. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void append(uint8_t kind, const char *path, uint64_t offset, const void *data, size_t bytes) {
    const char *log = getenv("RECORDER_LOG");
    if (!log) return;
    int file = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (file < 0) abort();
    struct head head = {.kind = kind, .path_bytes = strlen(path), .offset = offset, .data_bytes = bytes};
    struct iovec parts[3] = {{&head, sizeof head}, {(void *)path, head.path_bytes}, {(void *)data, bytes}};
    ssize_t whole = sizeof head + head.path_bytes + bytes;
    if (syscall(SYS_writev, file, parts, 3) != whole) abort();
    syscall(SYS_close, file);
}

static int is_below(const char *path) {
    const char *root = getenv("RECORDER_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0);
}

/* The absolute path of an open file, if it is one of those that are watched. */
static const char *watched(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 4095);
    if (length <= 0) return NULL;
    path[length] = 0;
    return is_below(path) ? path : NULL;
}

static const char *absolute(const char *path, char *full) {
    if (path[0] == '/') snprintf(full, 4096, "%s", path);
    else {
        if (!getcwd(full, 2048)) return NULL;
        size_t length = strlen(full);
        while (path[0] == '.' && path[1] == '/') path += 2;
        snprintf(full + length, 4096 - length, "/%s", path);
    }
    return is_below(full) ? full : NULL;
}

static int open_recorded(int folder, const char *path, int flags, mode_t mode) {
    char full[4096];
    const char *seen = folder == AT_FDCWD || path[0] == '/' ? absolute(path, full) : NULL;
    struct stat before;
    pthread_mutex_lock(&lock);
    int was = seen && stat(seen, &before) == 0;
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    if (fd >= 0 && seen && (flags & O_CREAT) && !was) append('C', seen, 0, NULL, 0);
    if (fd >= 0 && seen && (flags & O_TRUNC) && was) append('S', seen, 0, NULL, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define OPEN(name, before, folder)                                                                                     \
    int name before {                                                                                                  \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode_t mode = va_arg(more, int);                                                                               \
        va_end(more);                                                                                                  \
        return open_recorded(folder, path, flags, mode);                                                               \
    }
OPEN(open, (const char *path, int flags, ...), AT_FDCWD)
OPEN(open64, (const char *path, int flags, ...), AT_FDCWD)
OPEN(openat, (int folder, const char *path, int flags, ...), folder)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder)

/* offset < 0: where the file stands. */
static ssize_t write_recorded(int fd, const void *data, size_t bytes, off_t offset) {
    char path[4096];
    const char *seen = watched(fd, path);
    if (!seen) return offset < 0 ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, offset);
    pthread_mutex_lock(&lock);
    off_t at = offset;
    if (offset < 0) {
        struct stat now;
        int appends = fcntl(fd, F_GETFL) & O_APPEND;
        at = appends && fstat(fd, &now) == 0 ? now.st_size : lseek(fd, 0, SEEK_CUR);
    }
    ssize_t written = offset < 0 ? syscall(SYS_write, fd, data, bytes) : syscall(SYS_pwrite64, fd, data, bytes, offset);
    if (written > 0) append('W', seen, at, data, written);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return written;
}

ssize_t write(int fd, const void *data, size_t bytes) { return write_recorded(fd, data, bytes, -1); }
ssize_t pwrite(int fd, const void *data, size_t bytes, off_t at) { return write_recorded(fd, data, bytes, at); }
ssize_t pwrite64(int fd, const void *data, size_t bytes, off_t at) { return write_recorded(fd, data, bytes, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    char path[4096];
    if (!watched(fd, path)) return syscall(SYS_writev, fd, parts, count);
    ssize_t all = 0;
    for (int i = 0; i < count; i++) {
        ssize_t written = parts[i].iov_len ? write_recorded(fd, parts[i].iov_base, parts[i].iov_len, -1) : 0;
        if (written < 0) return all ? all : written;
        all += written;
        if ((size_t)written < parts[i].iov_len) break;
    }
    return all;
}

static int sync_recorded(int fd, long call) {
    char path[4096];
    const char *seen = watched(fd, path), *fails = getenv("FAIL_SYNCS");
    if (!seen) return syscall(call, fd);
    if (fails && access(fails, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_lock(&lock);
    int result = syscall(call, fd);
    if (result == 0) append('F', seen, 0, NULL, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int fsync(int fd) { return sync_recorded(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_recorded(fd, SYS_fdatasync); }

int ftruncate(int fd, off_t length) {
    char path[4096];
    const char *seen = watched(fd, path);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_ftruncate, fd, length);
    if (result == 0 && seen) append('S', seen, length, NULL, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

int rename(const char *from, const char *to) {
    char full[4096], target[4096];
    const char *seen = absolute(from, full), *end = absolute(to, target);
    pthread_mutex_lock(&lock);
    int result = syscall(SYS_rename, from, to);
    if (result == 0 && seen && end) append('N', seen, 0, end, strlen(end));
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int named(uint8_t kind, const char *path, int result) {
    char full[4096];
    int error = errno;
    const char *seen = absolute(path, full);
    if (result == 0 && seen) append(kind, seen, 0, NULL, 0);
    errno = error;
    return result;
}

#define NAMED(kind, path, call)                                                                                        \
    pthread_mutex_lock(&lock);                                                                                         \
    int result = named(kind, path, call);                                                                              \
    pthread_mutex_unlock(&lock);                                                                                       \
    return result;

int unlink(const char *path) { NAMED('U', path, syscall(SYS_unlink, path)) }
int rmdir(const char *path) { NAMED('R', path, syscall(SYS_rmdir, path)) }
int mkdir(const char *path, mode_t mode) { NAMED('M', path, syscall(SYS_mkdir, path, mode)) }
