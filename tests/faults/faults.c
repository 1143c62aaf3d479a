/*
 * Faults of the disk and the clock for one program, switched on and off while it runs. Preloaded into the real
 * programs by `tests/src/faults.rs`, which is the other half of both layouts below.
 *
 * Only files under one folder are touched: everything else goes to the kernel as it is. Nothing here calls the
 * functions that it stands for; it makes the system calls itself. What a program maps into its memory is not
 * seen (SQLite maps its index of the log, which it builds again).
 *
 * INTERLOCK_FAULTS_FOLDER   the folder, absolute and without links
 * INTERLOCK_FAULTS_CONTROL  a file of WORDS 64-bit words, mapped: see `enum word`
 * INTERLOCK_FAULTS_TRACE    where every operation is appended, while the control says so: see `struct record`
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum word {
    SPACE,         /* bytes that files may still grow by; negative: without end */
    SYNC_PASS,     /* syncs that pass before the first that fails */
    SYNC_FAIL,     /* syncs that fail then; negative: all */
    SYNC_DELAY_US, /* how long each sync takes besides */
    WRITE_PASS,    /* writes that pass before the first that fails with EIO */
    WRITE_FAIL,    /* writes that fail then; negative: all */
    WRITE_MAX,     /* most bytes that one write takes; 0: all */
    CLOCK_US,      /* what the wall clock is ahead, in microseconds */
    TRACE,         /* 1: operations are appended to the trace */
    /* Counted here, read by the test. */
    WRITES, BYTES, SYNCS, SYNCS_FAILED, WRITES_FAILED, WRITES_REFUSED,
    WORDS
};

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_LOST, RENAME, UNLINK, MARK, MKDIR, LINK };

/* Then `path_len` bytes of path and `data_len` bytes of data (RENAME, LINK: the new path). */
struct record {
    uint32_t kind, path_len;
    uint64_t inode, offset, data_len;
};

#define FDS_MAX 65536

struct open_file {
    char *path; /* NULL: not ours */
    uint64_t inode;
};

static struct open_file files[FDS_MAX];
static int64_t none[WORDS] = { [SPACE] = -1 };
static volatile int64_t *control = none;
static char folder[PATH_MAX];
static size_t folder_len;
static int trace_fd = -1;
/* Held over an operation and its record, so that the trace has them in the order in which they happened. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

static int64_t word(enum word at) { return __atomic_load_n(&control[at], __ATOMIC_SEQ_CST); }
static void add(enum word at, int64_t by) { __atomic_add_fetch(&control[at], by, __ATOMIC_SEQ_CST); }

/* Gives space back. */
static void spare(int64_t by) {
    int64_t left = word(SPACE);
    while (left >= 0
           && !__atomic_compare_exchange_n(&control[SPACE], &left, left + by, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

static int raw_open(int dir, const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

__attribute__((constructor)) static void begin(void) {
    const char *under = getenv("INTERLOCK_FAULTS_FOLDER");
    const char *words = getenv("INTERLOCK_FAULTS_CONTROL");
    const char *trace = getenv("INTERLOCK_FAULTS_TRACE");
    if (!under || !words || strlen(under) >= sizeof folder) return;
    int fd = raw_open(AT_FDCWD, words, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *map = mmap(NULL, sizeof none, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (map == MAP_FAILED) return;
    if (trace) {
        int low = raw_open(AT_FDCWD, trace, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
        /* Out of the way of those that count descriptors. */
        trace_fd = low < 0 ? -1 : fcntl(low, F_DUPFD_CLOEXEC, 900);
        if (trace_fd < 0) trace_fd = low;
        else syscall(SYS_close, low);
    }
    strcpy(folder, under);
    folder_len = strlen(folder);
    control = map;
}

/* ---- which files are ours ---- */

static int ours(const char *path) {
    return folder_len && strncmp(path, folder, folder_len) == 0
        && (path[folder_len] == '/' || path[folder_len] == 0);
}

/* The path without links and dots; 0 where its folder does not exist. */
static int absolute(int dir, const char *path, char out[PATH_MAX]) {
    char joined[PATH_MAX], place[64];
    size_t used = 0;
    if (path[0] != '/' && dir != AT_FDCWD) {
        char *at = place + strlen("/proc/self/fd/");
        char digits[16];
        int n = 0;
        memcpy(place, "/proc/self/fd/", sizeof "/proc/self/fd/");
        for (int rest = dir; rest || !n; rest /= 10) digits[n++] = (char)('0' + rest % 10);
        while (n) *at++ = digits[--n];
        *at = 0;
        ssize_t len = readlink(place, joined, sizeof joined - 1);
        if (len < 0) return 0;
        joined[len] = '/';
        used = (size_t)len + 1;
    }
    if (used + strlen(path) >= sizeof joined) return 0;
    strcpy(joined + used, path);
    char *slash = strrchr(joined, '/');
    const char *name = slash ? slash + 1 : joined;
    if (!strcmp(name, "") || !strcmp(name, ".") || !strcmp(name, "..")) return realpath(joined, out) != NULL;
    char kept[NAME_MAX + 1];
    if (strlen(name) > NAME_MAX) return 0;
    strcpy(kept, name);
    if (slash == joined) slash[1] = 0;
    else if (slash) *slash = 0;
    else strcpy(joined, ".");
    if (!realpath(joined, out) || strlen(out) + strlen(kept) + 2 > PATH_MAX) return 0;
    if (strcmp(out, "/")) strcat(out, "/");
    strcat(out, kept);
    return 1;
}

static struct open_file *of(int fd) {
    return fd >= 0 && fd < FDS_MAX && files[fd].path ? &files[fd] : NULL;
}

/* ---- the trace ---- */

static void record(enum kind kind, const char *path, uint64_t inode, uint64_t offset, const void *data,
                   size_t data_len) {
    if (trace_fd < 0 || word(TRACE) != 1) return;
    struct record head = { kind, (uint32_t)strlen(path), inode, offset, data_len };
    struct iovec parts[] = { { &head, sizeof head }, { (void *)path, head.path_len }, { (void *)data, data_len } };
    int kept = errno;
    /* One call: the test appends its marks to the same file. */
    ssize_t want = (ssize_t)(sizeof head + head.path_len + data_len);
    if (syscall(SYS_writev, trace_fd, parts, 3) != want) abort();
    errno = kept;
}

/* ---- opening and closing ---- */

static int opened(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    if (!folder_len || !path || !absolute(dir, path, full) || !ours(full)) {
        int fd = raw_open(dir, path, flags, mode);
        return fd;
    }
    pthread_mutex_lock(&order);
    struct stat before, now;
    int existed = stat(full, &before) == 0;
    int fd = raw_open(dir, path, flags, mode);
    int kept = errno;
    if (fd >= 0 && fd < FDS_MAX && fstat(fd, &now) == 0) {
        free(files[fd].path);
        files[fd].path = strdup(full);
        files[fd].inode = now.st_ino;
        if (!existed) record(CREATE, full, now.st_ino, 0, NULL, 0);
        else if ((flags & O_TRUNC) && S_ISREG(now.st_mode)) {
            spare(before.st_size);
            record(TRUNCATE, full, now.st_ino, 0, NULL, 0);
        }
    }
    pthread_mutex_unlock(&order);
    errno = kept;
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int openat(int dir, const char *path, int flags, ...) { MODE_OF(flags) return opened(dir, path, flags, mode); }
int openat64(int dir, const char *path, int flags, ...) { MODE_OF(flags) return opened(dir, path, flags, mode); }
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int creat(const char *path, mode_t mode) { return opened(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

int close(int fd) {
    struct open_file *file = of(fd);
    if (file) {
        free(file->path);
        file->path = NULL;
    }
    return (int)syscall(SYS_close, fd);
}

/* ---- writing ---- */

/* Takes up to `want` from a word that is not negative; how much that was. What the test sets meanwhile stays. */
static int64_t take(enum word at, int64_t want) {
    int64_t there = word(at), got;
    do {
        if (there < 0) return want;
        got = want < there ? want : there;
    } while (!__atomic_compare_exchange_n(&control[at], &there, there - got, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return got;
}

/* Whether the operation that these two words stand for fails this time. */
static int fails(enum word pass, enum word fail) {
    return word(fail) != 0 && take(pass, 1) == 0 && take(fail, 1) == 1;
}

/* Takes what `end` needs beyond `size` from the space that is left; how many bytes are missing. */
static uint64_t grow(uint64_t size, uint64_t end) {
    return end > size ? end - size - (uint64_t)take(SPACE, (int64_t)(end - size)) : 0;
}

static ssize_t written(int fd, struct open_file *file, const void *data, size_t len, off_t offset, int at_offset) {
    struct stat now;
    pthread_mutex_lock(&order);
    ssize_t done = -1;
    int kept = EIO;
    add(WRITES, 1);
    if (fails(WRITE_PASS, WRITE_FAIL)) {
        add(WRITES_FAILED, 1);
        goto out;
    }
    if (fstat(fd, &now) != 0) goto out;
    if (!at_offset) offset = (fcntl(fd, F_GETFL) & O_APPEND) ? now.st_size : lseek(fd, 0, SEEK_CUR);
    int64_t max = word(WRITE_MAX);
    if (max > 0 && len > (size_t)max) len = (size_t)max;
    uint64_t missing = grow((uint64_t)now.st_size, (uint64_t)offset + len);
    if (missing) {
        add(WRITES_REFUSED, 1);
        if (missing >= len) {
            kept = ENOSPC;
            goto out;
        }
        len -= missing;
    }
    done = at_offset ? syscall(SYS_pwrite64, fd, data, len, offset) : syscall(SYS_write, fd, data, len);
    kept = errno;
    if (done > 0) {
        add(BYTES, done);
        record(WRITE, file->path, file->inode, (uint64_t)offset, data, (size_t)done);
    }
out:
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

ssize_t write(int fd, const void *data, size_t len) {
    struct open_file *file = of(fd);
    return file ? written(fd, file, data, len, 0, 0) : syscall(SYS_write, fd, data, len);
}

ssize_t pwrite(int fd, const void *data, size_t len, off_t offset) {
    struct open_file *file = of(fd);
    return file ? written(fd, file, data, len, offset, 1) : syscall(SYS_pwrite64, fd, data, len, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t len, off64_t offset) { return pwrite(fd, data, len, offset); }

/* A part may be written alone: callers go on with the rest. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct open_file *file = of(fd);
    if (!file) return syscall(SYS_writev, fd, parts, count);
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return written(fd, file, parts[i].iov_base, parts[i].iov_len, 0, 0);
    return 0;
}

static int resized(int fd, struct open_file *file, off_t length) {
    struct stat now;
    int done = -1, kept = ENOSPC;
    pthread_mutex_lock(&order);
    if (fstat(fd, &now) == 0) {
        if (length < now.st_size) spare(now.st_size - length);
        /* Where it grows it is counted as if it were filled: a hole is an error put off. */
        if (length > now.st_size && grow((uint64_t)now.st_size, (uint64_t)length)) goto out;
        done = (int)syscall(SYS_ftruncate, fd, length);
        kept = errno;
        if (done == 0) record(TRUNCATE, file->path, file->inode, (uint64_t)length, NULL, 0);
    }
out:
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int ftruncate(int fd, off_t length) {
    struct open_file *file = of(fd);
    return file ? resized(fd, file, length) : (int)syscall(SYS_ftruncate, fd, length);
}

int ftruncate64(int fd, off64_t length) { return ftruncate(fd, length); }

int fallocate(int fd, int mode, off_t offset, off_t length) {
    struct open_file *file = of(fd);
    struct stat now;
    if (!file) return (int)syscall(SYS_fallocate, fd, mode, offset, length);
    /* Other modes are not of use to what is tested here. */
    if (mode != 0 || fstat(fd, &now) != 0) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return offset + length > now.st_size ? resized(fd, file, offset + length) : 0;
}

int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return fallocate(fd, mode, offset, length); }

int posix_fallocate(int fd, off_t offset, off_t length) {
    return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

int posix_fallocate64(int fd, off64_t offset, off64_t length) { return posix_fallocate(fd, offset, length); }

/* ---- making it last ---- */

static int synced(int fd, struct open_file *file, long call) {
    int64_t delay = word(SYNC_DELAY_US);
    if (delay > 0) {
        struct timespec span = { delay / 1000000, delay % 1000000 * 1000 };
        syscall(SYS_nanosleep, &span, NULL);
    }
    pthread_mutex_lock(&order);
    int done = -1, kept = EIO;
    add(SYNCS, 1);
    if (fails(SYNC_PASS, SYNC_FAIL)) {
        add(SYNCS_FAILED, 1);
        record(SYNC_LOST, file->path, file->inode, 0, NULL, 0);
    } else {
        done = (int)syscall(call, fd);
        kept = errno;
        if (done == 0) record(SYNC, file->path, file->inode, 0, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int fsync(int fd) {
    struct open_file *file = of(fd);
    return file ? synced(fd, file, SYS_fsync) : (int)syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    struct open_file *file = of(fd);
    return file ? synced(fd, file, SYS_fdatasync) : (int)syscall(SYS_fdatasync, fd);
}

/* ---- names ---- */

static int renamed(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int watched = folder_len && absolute(from_dir, from, old) && absolute(to_dir, to, new) && (ours(old) || ours(new));
    if (!watched) return (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    struct stat replaced;
    pthread_mutex_lock(&order);
    int replaces = stat(new, &replaced) == 0;
    int done = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags), kept = errno;
    if (done == 0) {
        if (replaces) spare(replaced.st_size);
        record(RENAME, old, 0, 0, new, strlen(new));
    }
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int rename(const char *from, const char *to) { return renamed(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int a, const char *from, int b, const char *to) { return renamed(a, from, b, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) { return renamed(a, from, b, to, flags); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int watched = folder_len && absolute(from_dir, from, old) && absolute(to_dir, to, new) && (ours(old) || ours(new));
    if (!watched) return (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags), kept = errno;
    if (done == 0) record(LINK, old, 0, 0, new, strlen(new));
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int dir, const char *path, int flags) {
    char full[PATH_MAX];
    if (!folder_len || !absolute(dir, path, full) || !ours(full)) return (int)syscall(SYS_unlinkat, dir, path, flags);
    struct stat gone;
    pthread_mutex_lock(&order);
    int known = stat(full, &gone) == 0;
    int done = (int)syscall(SYS_unlinkat, dir, path, flags), kept = errno;
    if (done == 0) {
        if (known && S_ISREG(gone.st_mode) && gone.st_nlink == 1) spare(gone.st_size);
        record(UNLINK, full, 0, 0, NULL, 0);
    }
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int remove(const char *path) {
    int done = unlinkat(AT_FDCWD, path, 0);
    return done < 0 && errno == EISDIR ? unlinkat(AT_FDCWD, path, AT_REMOVEDIR) : done;
}

int mkdirat(int dir, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!folder_len || !absolute(dir, path, full) || !ours(full)) return (int)syscall(SYS_mkdirat, dir, path, mode);
    pthread_mutex_lock(&order);
    int done = (int)syscall(SYS_mkdirat, dir, path, mode), kept = errno;
    if (done == 0) record(MKDIR, full, 0, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    errno = kept;
    return done;
}

int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ---- the wall clock ---- */

int clock_gettime(clockid_t clock, struct timespec *out) {
    int done = (int)syscall(SYS_clock_gettime, clock, out);
    int64_t ahead = word(CLOCK_US);
    if (done != 0 || !ahead || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return done;
    int64_t nanos = out->tv_nsec + ahead % 1000000 * 1000;
    out->tv_sec += ahead / 1000000;
    if (nanos < 0) {
        nanos += 1000000000;
        out->tv_sec -= 1;
    } else if (nanos >= 1000000000) {
        nanos -= 1000000000;
        out->tv_sec += 1;
    }
    out->tv_nsec = nanos;
    return 0;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
