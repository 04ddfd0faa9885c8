/* Loaded before a process (LD_PRELOAD), lets a step of writing files fail, or kills the process in
   it. Only files below FAULT_ROOT count. FAULT says which step, and how many such steps go well
   before: "full|kill|EIO Create|Write|Sync|Rename|SyncFolder|… N"; "Any" is every step. Without
   FAULT, all steps are counted, and a line for each of them goes to the file FAULT_STEPS.
   Checkpoints are written in halves, so that there is a middle to fail in. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int ends_with(const char* path, const char* end) {
    size_t length = strlen(path), tail = strlen(end);
    return length >= tail && strcmp(path + length - tail, end) == 0;
}

/* Whether this is a checkpoint that is not whole yet. */
static int is_temporary(const char* path) {
    return strstr(path, "/checkpoints/.") && ends_with(path, ".tmp");
}

static int counts(const char* path) {
    const char* root = getenv("FAULT_ROOT");
    return root ? strncmp(path, root, strlen(root)) == 0 : is_temporary(path) || ends_with(path, "/checkpoints");
}

static void path_of(int file, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void list(const char* step, const char* path) {
    const char* steps = getenv("FAULT_STEPS");
    if (!steps) return;
    int file = NEXT(open64)(steps, O_WRONLY | O_CREAT | O_APPEND, 0644);
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s\n", step, path);
    if (NEXT(write)(file, line, length) != length) abort();
    NEXT(close)(file);
}

/* Whether this step fails, with errno set; a step in which the process is to die does not return. */
static int fails(const char* step, const char* path) {
    static atomic_int seen;
    char kind[8], wanted[16];
    int well;
    if (!counts(path)) return 0;
    const char* fault = getenv("FAULT");
    if (!fault || sscanf(fault, "%7s %15s %d", kind, wanted, &well) != 3) {
        list(step, path);
        return 0;
    }
    int any = strcmp(wanted, "Any") == 0;
    if ((!any && strcmp(step, wanted) != 0) || atomic_fetch_add(&seen, 1) != well) return 0;
    if (strcmp(kind, "kill") == 0) kill(getpid(), SIGKILL);
    errno = strcmp(kind, "EIO") == 0 ? EIO : ENOSPC;
    return 1;
}

int open64(const char* path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = va_arg(rest, mode_t);
    va_end(rest);
    if ((flags & O_CREAT) && fails("Create", path)) return -1;
    return NEXT(open64)(path, flags, mode);
}

ssize_t write(int file, const void* bytes, size_t count) {
    char path[PATH_MAX];
    path_of(file, path);
    if (fails("Write", path)) return -1;
    if (is_temporary(path)) count -= count / 2;
    return NEXT(write)(file, bytes, count);
}

int fsync(int file) {
    char path[PATH_MAX];
    struct stat64 found;
    path_of(file, path);
    int folder = fstat64(file, &found) == 0 && S_ISDIR(found.st_mode);
    if (fails(folder ? "SyncFolder" : "Sync", path)) return -1;
    return NEXT(fsync)(file);
}

int fdatasync(int file) {
    char path[PATH_MAX];
    path_of(file, path);
    return fails("Sync", path) ? -1 : NEXT(fdatasync)(file);
}

int close(int file) {
    char path[PATH_MAX];
    path_of(file, path);
    int failed = fails("Close", path), error = errno;
    int result = NEXT(close)(file);
    if (!failed) return result;
    errno = error;
    return -1;
}

int rename(const char* from, const char* to) {
    return fails("Rename", from) ? -1 : NEXT(rename)(from, to);
}

int unlink(const char* path) {
    struct stat64 found;
    int there = lstat64(path, &found) == 0;
    return there && fails("Remove", path) ? -1 : NEXT(unlink)(path);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) {
    return fails("Link", to) ? -1 : NEXT(linkat)(from_folder, from, to_folder, to, flags);
}

int mkdir(const char* path, mode_t mode) {
    struct stat64 found;
    int there = stat64(path, &found) == 0;
    return !there && fails("Folder", path) ? -1 : NEXT(mkdir)(path, mode);
}

int ftruncate64(int file, off64_t length) {
    char path[PATH_MAX];
    path_of(file, path);
    return fails("Truncate", path) ? -1 : NEXT(ftruncate64)(file, length);
}

off64_t lseek64(int file, off64_t offset, int whence) {
    char path[PATH_MAX];
    path_of(file, path);
    return whence == SEEK_SET && fails("Seek", path) ? -1 : NEXT(lseek64)(file, offset, whence);
}
